"""What this example has in common with ../weights: the model's tensors, their content, and the rule by which versions are read."""

import sys
from pathlib import Path

# Ray gives the folder of main.py to the processes of actors, and no other one.
sys.path.append(str(Path(__file__).resolve().parent.parent / "weights"))

import board
from content import train, wrong_tensors
from state import KIND, address_of, new_state, rows_of

__all__ = ["KIND", "address_of", "board", "new_state", "rows_of", "train", "wrong_tensors"]
