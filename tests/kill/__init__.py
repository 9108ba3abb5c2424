"""Work that is killed at random moments, again and again, and ends like work left in peace.

python -m tests.kill                          # make kill: 200 kills, a quarter of an hour
python -m tests.kill --kinds grid --kills 10 --seed 7
"""
