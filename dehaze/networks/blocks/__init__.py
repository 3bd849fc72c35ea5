"""Parts that networks share, each in a file of its own; tokens are laid out as [B,H,W,C]."""
