"""The project's own corpus of attacks: cases that must end in one clear line or in a right result, and what came of them.

    python -m tests.attacks                        all of it, as a table of counts by class
    python -m tests.attacks arrays labels          some classes
    python -m tests.attacks --only "png, empty"    some cases, by a part of their names, with what they said
    python -m tests.attacks fuzz --fuzz 200        a shorter fuzz: so many cards and tensor files, twice as many pictures

`cases` says what a case is, `runner` runs them in processes of their own; every other module is a class of cases.
"""
