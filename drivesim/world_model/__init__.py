"""Token ids and context to the next token ids: STPT, masking, sampling (WorldDreamer sections 3.2 to 3.4).

Letters, for the whole package: `B` batch, `T` frames, `H W` pixels, `h w` token rows and columns, `S` tokens per frame
(`h * w`), `C` channels, `N` heads, `D` head width, `K` codebook size, `Q` numbers per code, `G` guide numbers per
token, `L` prompt length, `A` control size (speed, yaw rate), `W` frames of the attention window, `F` frames that stand
in the batch dimension (B * T).
"""
