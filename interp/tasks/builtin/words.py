"""Word lists that several tasks share."""

from __future__ import annotations

WOMEN = (
    "Mary", "Sarah", "Emily", "Anna", "Laura", "Lisa", "Susan", "Karen", "Nancy", "Helen", "Linda", "Alice",
    "Jane", "Kate", "Julia", "Emma", "Rachel", "Jessica", "Amy", "Michelle", "Maria", "Elizabeth",
    "Jennifer", "Barbara", "Martha", "Ruth", "Sandra", "Diana", "Rebecca", "Amanda", "Margaret",
    "Catherine", "Grace", "Claire", "Sophie", "Lucy", "Hannah",
)  # fmt: skip
MEN = (
    "John", "James", "David", "Michael", "Robert", "William", "Thomas", "Daniel", "Mark", "Paul", "George",
    "Kevin", "Steven", "Brian", "Andrew", "Peter", "Henry", "Jack", "Tom", "Adam", "Eric", "Simon",
    "Richard", "Charles", "Joseph", "Matthew", "Edward", "Patrick", "Frank", "Scott", "Jason", "Ryan",
    "Philip", "Martin", "Joe", "Ben", "Dan",
)  # fmt: skip
