"""Device profiles that ship: how fast `shipped:street` is on machines that were measured.

Each file says how it was measured: device facts, load, command line, every sample. With one of them
`edgeseg pick shipped:street --profile FILE` answers without measuring.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
