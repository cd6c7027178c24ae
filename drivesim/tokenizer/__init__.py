"""Frames to discrete tokens and back (WorldDreamer section 3.1); knows nothing of driving.

Letters: `B` batch, `C` channels, `H W` pixels or latent rows and columns, `S` tokens per frame, `K` codebook size,
`Q` numbers per code, `G` digit values (the sum of the levels of a finite scalar quantizer).
"""
