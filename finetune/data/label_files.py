"""The folder of a teacher's labels: what ``finetune label``, which writes it, and the reader ``pseudo`` agree on."""

FORMAT = 1
SUMMARY, TABLE = "labels.json", "labels.csv"
# Of the confidence maps, also those of ``predict --confidence``: a stored 1 is 1e-4 of the natural logarithm, 0.01 %
# of depth; 65535 is 6.55 or more.
DISAGREEMENT_UNITS = 10_000.0
