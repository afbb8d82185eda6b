"""Train the judges for a corpus, once, and say how good they are: ``python -m codec.judge dataset=espeak``.

The words name a corpus as in ``python -m codec extract``; the judges do not learn from its held-out speakers.
"""

import argparse
import logging
from collections.abc import Sequence

from codec.data.base import readable
from codec.data.folder import FolderCorpus
from codec.judge.mel import SAMPLE_RATE
from codec.judge.panel import Panel
from codec.run import one_sentence
from codec.source import open_corpus


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m codec.judge", description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+", help="the corpus under study: a folder, shards, or dataset=NAME ...")
    parser.add_argument(
        "--speakers", nargs="*", default=[], help="folders whose manifests name speakers, to learn from"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_sentence():
        corpus = open_corpus(options.corpus, SAMPLE_RATE)
        speakers = {item["speaker"] for split in ("val", "test") for item in readable(corpus.clips(split, 0.1), [])}
        panel = Panel.apart_from(speakers, [FolderCorpus(folder, SAMPLE_RATE) for folder in options.speakers])
    recogniser, speaker = panel.recogniser, panel.speaker
    print(f"judges apart from {', '.join(sorted(speakers - {''})) or 'nobody that is named'}")
    print(f"{recogniser.identity}: phone error rate {100 * recogniser.error_rate:.1f} % on held-out voices")
    print(f"{speaker.identity}: equal error rate {100 * speaker.equal_error_rate:.1f} % on held-out voices")


if __name__ == "__main__":
    main()
