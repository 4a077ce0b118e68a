"""The error that is for people."""


class UserError(ValueError):
  """Something outside the code is wrong: a file, a label, a setting; the message says what, where and what is allowed.

  Entry points print the message alone, without a traceback.
  """
