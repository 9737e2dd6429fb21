"""A listening test in a browser that fits an aid's θ by ear. A research tool, no medical device."""
