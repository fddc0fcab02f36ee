"""The frame of a self-contained HTML page, and its style."""

import string

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --grid: #d9d9de;
  --soft: #5d5d68; --panel: #f5f5f7; --good: #00694b; --bad: #b03000; --link: #005a9c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ec; --paper: #17171a;
  --grid: #3a3a42; --soft: #a4a4b0; --panel: #212126; --good: #4cc9a0; --bad: #ff8a5c;
  --link: #7cc0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .75rem; }
.message { font-size: 1.12rem; border-left: 4px solid #009e73; padding-left: 1rem;
  margin: 0 0 1.5rem; }
a { color: var(--link); }
figure { margin: 0; }
figcaption { color: var(--soft); max-width: 46rem; margin-top: .5rem; }
.wide { overflow-x: auto; }
.plot svg { display: block; width: 100%; min-width: 600px; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
.verdicts { min-width: 680px; }
.verdicts td:nth-child(3), .verdicts td:nth-child(4) { min-width: 10rem; }
.verdicts td:last-child { white-space: nowrap; }
.numbers { width: auto; margin-bottom: 1rem; font-variant-numeric: tabular-nums; }
.numbers td { white-space: nowrap; padding: .2rem .8rem .2rem .3rem; }
.numbers th { padding: .2rem .8rem .2rem .3rem; vertical-align: bottom; }
#run .numbers td:last-child { white-space: normal; }
.interval { display: block; color: var(--soft); font-size: .8rem; }
.holds strong { color: var(--good); } .fails strong { color: var(--bad); }
.fails, .inconclusive { background: var(--panel); }
.inconclusive strong, .not-run strong { color: var(--soft); }
.claims { list-style: none; padding: 0; margin: .75rem 0; font-size: .93rem; }
.claims li { padding: .35rem .6rem; border-bottom: 1px solid var(--grid); }
pre { overflow-x: auto; font-size: .82rem; }
sup { line-height: 0; font-size: .72em; }
details { margin: .75rem 0; background: var(--panel); border-radius: 6px;
  padding: .5rem .9rem; }
summary { cursor: pointer; font-weight: 600; }
.links { font-size: .85rem; color: var(--soft); margin: .25rem 0; }
code { font-size: .82rem; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.5rem; } .message { font-size: 1.02rem; }
  .verdicts { min-width: 0; } .verdicts thead { display: none; }
  .verdicts tr { display: block; border-bottom: 1px solid var(--grid);
    padding: .6rem 0; }
  .verdicts td { display: block; border: 0; padding: .1rem .3rem; }
  .verdicts td:first-child { float: right; color: var(--soft); }
  .verdicts td:nth-child(2) { font-weight: 600; }
  .verdicts [data-label]::before { content: attr(data-label) ": ";
    color: var(--soft); } }
"""

STUDY = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<p class="links"><a href="index.html">All studies</a></p>
<h1>$question</h1>
<p class="message">$answer</p>
$first
$trouble
$groups
$rest
<section id="paper"><h2>The paper</h2>
<p>$summary</p>
<details><summary>Reference</summary><pre>$reference</pre></details>
</section>
<section id="verdicts"><h2>All verdicts</h2>
<details><summary>$counts</summary>
$verdicts
</details>
</section>
<section id="run"><h2>What was run</h2>
$runs
<details><summary>Versions, device and time</summary>$provenance</details>
</section>
</main>
</body>
</html>
""")

INDEX = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims about residual networks, tested</title>
<style>$style</style>
</head>
<body>
<main>
<h1>Claims about residual networks, tested</h1>
<p class="message">$counts. Each page opens with a paper's question and the figure that
answers it; a claim holds if the interval of what was measured lies within what is
predicted, fails if it lies outside, and is inconclusive in between.</p>
$studies
</main>
</body>
</html>
""")
