"""Rewards of your own: `score` for examples/ppo-function.yaml, `cheerful` for examples/sentiment-hello.yaml."""


def score(prompts, responses, words=40):
    """Prefers answers of about forty words that end a sentence: one number for each response.

    A prompt is a list of messages with `role` and `content`, a response is a text.
    """
    found = []
    for response in responses:
        length = len(response.split())
        ends = response.rstrip().endswith((".", "!", "?"))
        found.append(1.0 * ends - abs(length - words) / words)
    return found


def cheerful(responses):
    """How positive the words are, by VADER, -1 to 1: what `scorer: {kind: sentiment}` does too."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [analyzer.polarity_scores(response)["compound"] for response in responses]
