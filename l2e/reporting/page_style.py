"""The style sheet of report.html: light and dark, desktop and phone, system fonts only."""

CSS = """\
:root {
  --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --page: #ffffff; --raised: #f6f8fa;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #343b44; --page: #14171b; --raised: #1c2127; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 50rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1, h2, p, li, dd { overflow-wrap: anywhere; }
.kicker { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: .15rem 0 1.25rem; font-size: 1.75rem; line-height: 1.2; font-weight: 650; }
h2 { margin: 3rem 0 1rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem 1.25rem;
  margin: 0; padding: 1rem 1.15rem; background: var(--raised); border-radius: 8px;
}
.facts dt { color: var(--soft); font-size: .76rem; }
.facts dd { margin: 0; font-size: .92rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 2.25rem; }
.panel { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; }
.panel svg { display: block; width: 100%; max-width: 36rem; height: auto; margin: 0 auto; }
figcaption, .caption { color: var(--soft); font-size: .86rem; line-height: 1.5; }
figcaption { margin-top: .6rem; }
figcaption b, .caption b { color: var(--ink); }
.caption { margin: 1.75rem 0 .5rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; vertical-align: bottom; white-space: pre; line-height: 1.3;
  color: var(--soft); font-weight: 600; background: var(--raised); }
tr > .text { text-align: left; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
thead tr > :first-child { background: var(--raised); }
tbody th { font-weight: 600; }
.keyed tr > :first-child { min-width: 3.6rem; max-width: 3.6rem; }
.keyed tr > :nth-child(2) { position: sticky; left: 3.6rem; background: var(--page); }
.keyed thead tr > :nth-child(2) { background: var(--raised); }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
.wordy td, .wordy thead th { white-space: normal; min-width: 7rem; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.15rem; }
li { margin: .35rem 0; }
@media (max-width: 30rem) {
  main { padding: 1.5rem .9rem 3rem; }
  h1 { font-size: 1.4rem; }
  .panel { padding: .35rem; }
  .facts { grid-template-columns: 1fr 1fr; padding: .8rem .9rem; }
  th, td { padding: .4rem .55rem; }
  .named tbody th { white-space: normal; min-width: 9rem; max-width: 9rem; overflow-wrap: anywhere; }
}
@media (min-width: 60rem) {
  .scroll {
    position: relative; left: 50%; transform: translateX(-50%);
    width: max-content; min-width: 100%; max-width: min(80rem, 100vw - 3rem);
  }
}
@media print { .panel, .scroll { break-inside: avoid; } }"""
