"""A differentiable model of the auditory midbrain for every kind of hearing loss."""
