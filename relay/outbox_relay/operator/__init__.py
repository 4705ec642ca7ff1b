"""What people see and do: lists, status, steering and `doctor`, for whichever face shows them.

A library: it prints nothing, asks nobody, and returns frozen values. The command line shows them.
"""
