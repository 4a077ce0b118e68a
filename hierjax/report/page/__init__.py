"""The page of `hierjax report`: a pure function of `findings.Findings`, of a run or of anybody's predictions."""
