"""Texts that would like to be more than text."""

NASTY = (
    "<script>document.title='owned'</script><img src=x onerror=alert(1)><svg onload=alert(1)>"
    "{{ 7*7 }} \u202eevil\u202c \x1b[31m \x07 &amp; \"'` ]]> </textarea></script>"
)
HOSTILE = (
    NASTY,
    "[x](javascript:alert(1)) [x](JaVaScRiPt&#58;alert(1)) [x](data:text/html,<script>1</script>) [x](vbscript:x)",
    "![i](http://evil.example/x.png) ![i](data:image/svg+xml;base64,PHN2Zz4=) [![i](http://evil.example/y)](//evil.example)",
    "<https://evil.example> <javascript:alert(1)> <style>body{display:none}</style> <iframe src=//evil.example>",
    "[a]: http://evil.example 'hidden'\n\n[a] ![a][a]\n\n<div style=position:fixed onclick=alert(1)>over</div>",
    '```html onload=alert(1)\n<script>alert(1)</script>\n```\n\n~~~"><img src=x>\n<b>\n~~~',
    "| a | <img src=x onerror=alert(1)> |\n|:-:|--:|\n| `<script>` | [x](javascript:1) |",
    "$\\href{javascript:alert(1)}{x}$ $\\style{background:url(//evil.example)}{y}$ $\\class{top}{z}$",
    "\\(\\text{<script>}\\) $\\text{</math><img src=x>}$",
    "$$\\includegraphics{http://evil.example/x.png}\\url{http://evil.example}\\htmlId{desk}{a}\\color{red;}{b}$$",
    "\\[\\begin{array}{c}\\href{//evil.example}{\\unicode{60}script}\\end{array}\\]",
    "# <svg/onload=alert(1)>\n> <math><mtext></p><img src=x onerror=alert(1)>\n1. <table><td background=javascript:1>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x&#62; \\<script> `</code><script>`",
    "[" * 3000 + "*a " * 2000 + "`" * 999,
)
