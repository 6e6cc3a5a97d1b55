"""A reward of your own for examples/ppo-function.yaml: prefers answers of about forty words that end a sentence."""


def score(prompts, responses, words=40):
    """One number for each response. A prompt is a list of messages with `role` and `content`, a response is a text."""
    found = []
    for response in responses:
        length = len(response.split())
        ends = response.rstrip().endswith((".", "!", "?"))
        found.append(1.0 * ends - abs(length - words) / words)
    return found
