"""`hierjax evaluate`: the command, and its parts."""
