"""The update rules, one file each.  A new one is a file here and a line in `RULES`."""

#: file -> the rules in it, in the order in which they are listed everywhere
RULES = {
    "sgd": ("SGD",),
    "adagrad": ("AdaGrad",),
    "rmsprop": ("RMSProp",),
    "adam": ("Adam", "AdamW"),
    "adadelta": ("Adadelta",),
    "yogi": ("Yogi",),
    "nadam": ("NAdam",),
    "radam": ("RAdam",),
    "lion": ("Lion",),
    "muon": ("Muon",),
}
