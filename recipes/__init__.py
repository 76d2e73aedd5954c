"""The packaged recipes (installed as `aligncli.recipes`): one experiment a module, in its `RECIPE`.

They hold numbers and nothing else, and import only `aligncli.config` and each other.
"""
