"""What people see and do: lists, status, `retry` and its like, `doctor`; for any face to show.

A library: it prints nothing, asks nobody, and returns frozen values. The command line shows them.
"""
