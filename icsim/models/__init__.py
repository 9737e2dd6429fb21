"""Models of auditory responses: an encoder, a condition and a readout, on a clock."""
