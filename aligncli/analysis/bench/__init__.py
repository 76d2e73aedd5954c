"""Fair timing: contenders interleaved in one process, checked first, against the machine's own matrix product.

`timing`, `memory`, `machine` and `report` know nothing of what is measured. `operators` builds RoIConv and its
peers, `agreement` holds them against the reference, and `op` is the whole of `aligncli bench op`.
"""
