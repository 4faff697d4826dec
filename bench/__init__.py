"""The figures of the project: this tool beside others, in alternation, through the same two hops.

    client --- entry --------- hole --------- exit --- target
    load.py    forwarder     loopback, or     forwarder  target.py
                             hole.py

The rooms, from the bottom up; a file imports only from those above it:

    target.py      what swallows, mirrors, answers       a process of its own
    load.py        what is sent there                    processes of their own
    pour.py        the two ends of a pipe                processes of their own
    congestion.py  TCP's congestion control, the same for all
    hole.py        two hosts with a slow path between them
    stage.py       the processes of one subject: started, heard, gone
    forwarders.py  how the tool and each of its peers are started
    table.py       rows, comparisons and results
    measures.py    one measurement of one subject
    pipes.py       the same from a pipe to a pipe
    startup.py     the same of the tool's start
    machine.py     what the figures depend on, and other interpreters
    subjects.py    who is measured
    whys.py        what is different where ours is behind
    rows.py        the rows: what is measured, and beside whom
    report.py      results -> text and JSON                            pure
    charts.py      results -> SVG                                      pure
    document.py    results -> the figures of docs/PERFORMANCE.md       pure
    __main__.py    python -m bench
    demo.py        a program of its own: the main job on one machine
    syscalls.py    another: system calls, wake-ups and function calls, counted
    profiled.py    the tool as syscalls.py runs it to count its function calls
    pythons.py     another: interpreters that the bench can run the tool with

A row runs its subjects in turn, round after round, so that what else happens
on the machine meets all of them; a comparison takes the ratio of the figures
of each round, and the median of these.
"""
