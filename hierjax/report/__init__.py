from hierjax import extras

extras.require("report")
