"""report.html: one file with everything a run found, and no request to anywhere.

    report.json, manifest, recipe, figures, samples -> page.render -> one string

`text` makes what models and users wrote visible; the templates escape it (autoescape), and the viewer's script puts it
into the page as text only. Styles and scripts are files beside the templates, inlined and allowed by hash.
"""
