"""The words that peers and servers of the exchange speak: data, and how it is read and written.

Pure: nothing here does input or output, reads a clock, or knows a book. docs/PROTOCOL.md is the
same in prose; where a table stands in both, the one in the document is made from the one here.
"""
