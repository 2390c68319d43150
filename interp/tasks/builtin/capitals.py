"""Recalling the capital of a country."""

from __future__ import annotations

import random
from typing import Any

from interp import numbers
from interp.tasks.examples import Example
from interp.tasks.generate import About, Candidate, build
from interp.tasks.spans import field_spans, with_end
from interp.tasks.task import Task

ABOUT = About("capitals", "the capital of a country")

CAPITALS = {
    "Afghanistan": "Kabul", "Algeria": "Algiers", "Australia": "Canberra", "Austria": "Vienna", "Bangladesh": "Dhaka",
    "Belgium": "Brussels", "Bulgaria": "Sofia", "Canada": "Ottawa", "Chile": "Santiago", "China": "Beijing",
    "Colombia": "Bogota", "Croatia": "Zagreb", "Cuba": "Havana", "Denmark": "Copenhagen", "Ecuador": "Quito",
    "Egypt": "Cairo", "England": "London", "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin",
    "Ghana": "Accra", "Greece": "Athens", "Hungary": "Budapest", "India": "Delhi", "Indonesia": "Jakarta",
    "Iran": "Tehran", "Iraq": "Baghdad", "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Lebanon": "Beirut", "Libya": "Tripoli", "Morocco": "Rabat", "Nepal": "Kathmandu", "the Netherlands": "Amsterdam",
    "Norway": "Oslo", "Pakistan": "Islamabad", "Peru": "Lima", "the Philippines": "Manila", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Qatar": "Doha", "Romania": "Bucharest", "Russia": "Moscow", "Scotland": "Edinburgh",
    "Senegal": "Dakar", "Serbia": "Belgrade", "Somalia": "Mogadishu", "Spain": "Madrid", "Sudan": "Khartoum",
    "Sweden": "Stockholm", "Switzerland": "Bern", "Syria": "Damascus", "Taiwan": "Taipei", "Thailand": "Bangkok",
    "Tunisia": "Tunis", "Turkey": "Ankara", "Uganda": "Kampala", "Ukraine": "Kyiv", "Vietnam": "Hanoi",
    "Wales": "Cardiff", "Zambia": "Lusaka", "Zimbabwe": "Harare",
}  # fmt: skip
TEMPLATES = (
    "The capital of {country} is the city of",
    "The capital city of {country} is called",
    "Everyone knows that the capital of {country} is",
    "We flew to {country} to see its capital,",
    "The government of {country} has its seat in the capital,",
    "The largest embassies in {country} are found in its capital,",
    "My uncle lives in the capital of {country}, the city of",
    "If you live in the capital of {country}, you live in",
)


@numbers.checked(n=numbers.COUNT)
def capitals(n: int = 64, seed: int = 0, model: Any = None) -> Task:
    """Facts: "The capital of France is the city of" is continued by " Paris".

    The corrupted prompt names another country of as many tokens; its capital is the incorrect answer. Countries
    whose capital is more than one token are dropped. Spans: country, end.

    Args:
        n: number of prompts.
        seed: what they are drawn from.
        model: whose tokenizer they must suit.

    Raises `InputError` where the tokenizer does not allow `n` prompts.

    >>> example = capitals(n=1).examples[0]
    >>> example.correct != example.incorrect
    True
    """
    countries = list(CAPITALS)

    def draw(rng: random.Random, number: int) -> Candidate:
        wording = rng.choice(TEMPLATES)
        clean, corrupted = rng.sample(countries, 2)
        text = wording.format(country=clean)
        return Candidate(
            Example(
                clean=text,
                corrupted=wording.format(country=corrupted),
                correct=(f" {CAPITALS[clean]}",),
                incorrect=(f" {CAPITALS[corrupted]}",),
                spans=with_end(field_spans(wording, {"country": clean}, {"country": "country"}), text),
            )
        )

    return build(ABOUT, draw, n, seed, model)
