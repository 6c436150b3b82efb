"""Training of networks: how samples are disturbed, drawn and learnt from."""
