"""Tokens every table has, in the places CTC and the attention decoder expect them."""

BLANK = "<blank>"  # first: CTC's blank is id 0
UNKNOWN = "<unk>"  # second
SOS_EOS = "<sos/eos>"  # last: starts and ends the decoder's sequence
SPACE = "<space>"  # how a character table writes the space
SPECIAL_TOKENS = (BLANK, UNKNOWN, SOS_EOS, SPACE)
