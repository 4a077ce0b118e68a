"""The metrics of single-path predictions: `table.METRICS`, computed in numpy for runs and for anybody's predictions."""
