"""What a call costs: orm_core beside hand-written psycopg2 and other ORMs, doing the same work.

    python -m benchmarks [--only W1,W2] [--peers orm_core,peewee] [--repeat N]

Each contender is a process of its own with a database of its own, all alike. A run first checks
that all answer the same, then counts instructions (``counting``), then takes the time, contender
after contender, round after round.
"""
