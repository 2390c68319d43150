"""What facts are about: kinds of things, opposites, numbers as words. Capitals are those of the task `capitals`."""

from __future__ import annotations

# kinds that exclude each other; subjects as they stand at the beginning of a sentence, in lower case
CATEGORIES = {
    "animal": "a dog, a cat, a horse, a cow, a lion, a tiger, a rabbit, a wolf, a fox, a goat",
    "fruit": "an apple, a banana, a grape, a mango, a lemon, a pear, a melon, a peach",
    "metal": "iron, copper, zinc, aluminum, nickel, tin",
    "color": "red, blue, green, yellow, purple, black",
    "instrument": "a piano, a guitar, a violin, a flute, a trumpet, a drum, a cello",
    "vehicle": "a car, a truck, a bus, a train, a bicycle, a tractor",
    "sport": "tennis, football, baseball, basketball, hockey, golf, rugby",
    "bird": "an eagle, a sparrow, a pigeon, an owl, a robin, a crow",
    "fish": "a shark, a salmon, a trout, a tuna, a cod",
    "flower": "a rose, a tulip, a daisy, a lily, an orchid",
    "drink": "coffee, tea, beer, wine, milk",
    "furniture": "a chair, a table, a sofa, a bed, a desk",
    "language": "Spanish, German, Italian, Arabic, Russian, Portuguese",
    "month": "January, April, June, August, October, December",
}
ALSO = {frozenset(pair) for pair in (("animal", "bird"), ("animal", "fish"))}  # no pair to contrast

OPPOSITES = (
    ("hot", "cold"), ("up", "down"), ("left", "right"), ("near", "far"), ("day", "night"), ("old", "young"),
    ("fast", "slow"), ("high", "low"), ("rich", "poor"), ("happy", "sad"), ("wet", "dry"), ("open", "closed"),
    ("full", "empty"), ("hard", "soft"), ("light", "dark"), ("early", "late"), ("strong", "weak"), ("good", "bad"),
    ("inside", "outside"), ("north", "south"), ("east", "west"), ("love", "hate"),
    ("war", "peace"), ("life", "death"), ("summer", "winter"), ("male", "female"), ("buy", "sell"), ("win", "lose"),
    ("push", "pull"), ("true", "false"), ("thick", "thin"), ("wide", "narrow"), ("clean", "dirty"),
    ("loud", "quiet"), ("long", "short"), ("deep", "shallow"), ("past", "future"), ("friend", "enemy"),
    ("first", "last"),
)  # fmt: skip

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
