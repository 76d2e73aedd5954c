"""Fair timing: contenders interleaved in one process, against the machine's own matrix product.

`timing`, `memory`, `machine`, `report` and `fairness` know nothing of what is measured. `contenders` builds RoIConv
and its peers, `agreement` holds them against the reference, and `op` is the whole of `aligncli bench op`;
`detectors` builds detectors, `anatomy` splits their time, and `model` is the whole of `aligncli bench model`;
`steps` builds trainings, and `train` is the whole of `aligncli bench train`; `photos` makes files, `loaders` reads
them, and `data` is the whole of `aligncli bench data`; `made_results` makes detections, and `scoring` is the whole of
`aligncli bench eval`. `failures`: who cannot take part.
"""
