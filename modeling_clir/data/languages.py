"""Finds the languages that a model card on the Hub can name."""

import logging
import re
from functools import cache


logger = logging.getLogger(__name__)

ISO_639_1 = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
    es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka
    kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng
    nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su
    sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()  # noqa: SIM905
)


def languages_of(metadata: str | bool | list | None) -> list[str]:
    """Makes a list of what a card has as its `language`. PyYAML reads an unquoted `no`, Norwegian, as false."""
    codes = metadata if isinstance(metadata, list) else [metadata]
    return ["no" if code is False else str(code) for code in codes if code is not None]


def card_languages(languages: list[str]) -> list[str]:
    """
    Keeps the languages that the Hub accepts in a model card: codes of ISO 639-1, three letters as in ISO 639-2 and
    639-3, `code` and `multilingual`. Other codes, such as Wikipedia's `simple` and `zh_classical`, make the Hub refuse
    the card.
    """
    return [code for code in languages if code in ISO_639_1 or re.fullmatch("[a-z]{3}|code|multilingual", code)]


def warn_of_cards(languages: list[str]):
    """Logs once which languages [`card_languages`] leaves out, and what to do."""
    kept = card_languages(languages)
    if left_out := [code for code in dict.fromkeys(languages) if code not in kept]:
        warn_once(", ".join(left_out))


@cache
def warn_once(codes: str):
    logger.warning(
        f"the Hub accepts no model card with the language {codes}: the card leaves it out. To have it named, rename "
        "it to a code of ISO 639 (en for simple, lzh for zh_classical)"
    )


__all__ = ["card_languages", "languages_of", "warn_of_cards"]
