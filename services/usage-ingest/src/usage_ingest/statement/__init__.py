"""What was recorded, reported and counted in a span of days, and how the sums meet.

Three views of one usage, by UTC day. What is *recorded* is known by tool, and a report holds each
reading that was claimed, so it is known what became of it. *Reports* and what Stripe has *counted*
are known by meter alone. They meet in two sums, of each day and meter:

- reports = the claimed readings on that meter + what plans made of others (routes, markups);
- counted = reported + shadow + differences - not shown yet + counted without an answer
  + unexplained.
"""
