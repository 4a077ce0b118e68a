"""What the page is made of, of a run or of anybody's predictions."""
