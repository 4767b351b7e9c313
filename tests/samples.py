"""Small files of every type, made by the libraries' own writers or by hand."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from typing import Any

MARKDOWN = """---
title: Tides
lang: en
year: 2011
tags: [sea, moon]
date: 2011-05-04
---
# The tides

The Moon pulls on the sea.

## Spring tides

They are the largest.
"""

HTML = """<!DOCTYPE html>
<html lang="de"><head><meta charset="utf-8"><title>Brot - Almanach</title>
<meta property="og:title" content="Brot">
<meta name="date" content="2008-01-02"><link rel="canonical" href="https://example.org/brot">
<style>p { color: red }</style><script>var nothing = "secret words";</script></head>
<body><header>Almanach aller Dinge</header><nav><a href="/">Start</a> <a href="/tee">Tee</a></nav>
<main><h1>Brot<a href="#brot">¶</a></h1><p>Mehl, Wasser, <b>Salz</b> und <a href="/zeit">Zeit</a>.</p>
<h2>Mengen</h2><table><tr><th>Zutat</th><th>Gramm</th></tr><tr><td>Mehl</td><td>500</td></tr></table>
<pre><code class="language-sh">bake --hot</code></pre><ul><li>eins</li><li>zwei</li></ul></main>
<aside>Werbung</aside><footer>Impressum</footer></body></html>
"""

RST = """:tocdepth: 2

Honey bees
==========

They *dance*, see :class:`Bee` and :ref:`the flowers <flowers>`.

.. toctree::

   other

.. note:: Bees sting.

.. versionadded:: 1.2
   Queens.

Code
----

.. code-block:: python

   dance()

===== =====
bee   role
===== =====
Ada   queen
===== =====
"""


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return out.getvalue()


def lying(data: bytes, size: int = 1000) -> bytes:
    """The archive with this in place of the sizes of all parts over a megabyte."""
    out = bytearray(data)
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # in the directory, and before each part
        at = out.find(mark)
        while at >= 0:
            if struct.unpack_from("<I", out, at + offset)[0] > 1_000_000:
                struct.pack_into("<I", out, at + offset, size)
            at = out.find(mark, at + 4)
    return bytes(out)


def pdf(
    pages: Sequence[str],
    *,
    title: str = "",
    outline: Sequence[tuple[str, int]] = (),
    encrypted: bool = False,
    count: int | None = None,
) -> bytes:
    """A PDF by hand. outline: entries with the number of their page. count: of the first page, repeated."""
    objects: list[str] = []

    def add(text: str) -> int:
        objects.append(text)
        return len(objects)

    catalog, tree, font = add(""), add(""), add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for page in pages:
        shown = "".join(
            f"({line.replace('(', '').replace(')', '')}) Tj 0 -14 Td " for line in page.splitlines()
        )
        stream = f"BT /F1 12 Tf 72 720 Td {shown}ET"
        contents = add(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(
            add(
                f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 612 792] /Contents {contents} 0 R "
                f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
            )
        )
    listed = [kids[0]] * count if count else kids
    objects[tree - 1] = (
        f"<< /Type /Pages /Count {len(listed)} /Kids [{' '.join(f'{kid} 0 R' for kid in listed)}] >>"
    )
    outlines = ""
    if outline:
        top = add("")
        first = len(objects) + 1
        for i, (name, number) in enumerate(outline):
            following = f"/Next {first + i + 1} 0 R" if i + 1 < len(outline) else ""
            add(f"<< /Title ({name}) /Parent {top} 0 R {following} /Dest [{kids[number - 1]} 0 R /Fit] >>")
        objects[top - 1] = f"<< /Type /Outlines /First {first} 0 R /Last {first + len(outline) - 1} 0 R >>"
        outlines = f"/Outlines {top} 0 R"
    objects[catalog - 1] = f"<< /Type /Catalog /Pages {tree} 0 R {outlines} >>"
    info = add(f"<< /Title ({title}) /Author (Ada) /CreationDate (D:20110504120000Z) >>")
    locked = ""
    if encrypted:
        secret = "41" * 32
        number = add(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{secret}> /U <{secret}> >>")
        locked = f"/Encrypt {number} 0 R /ID [<{secret}> <{secret}>]"
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1")
    start = len(out)
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"<< /Size {len(objects) + 1} /Root {catalog} 0 R /Info {info} 0 R {locked} >>"
    tail = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n{end}\nstartxref\n{start}\n%%EOF\n"
    )
    return out + tail.encode()


CORE = """<?xml version="1.0"?><cp:coreProperties
 xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/">
<dc:title>Report on tea</dc:title><dc:creator>Ada</dc:creator>
<dcterms:modified>2012-03-04T05:06:07Z</dcterms:modified>
</cp:coreProperties>"""

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
DOCX_BODY = """<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Tea</w:t></w:r></w:p>
<w:p><w:r><w:t>Leaves and water.</w:t></w:r></w:p>
<w:tbl><w:tr><w:tc><w:p><w:r><w:t>kind</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>minutes</w:t></w:r></w:p></w:tc></w:tr>
<w:tr><w:tc><w:p><w:r><w:t>green</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>2</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"""


def docx(body: str = DOCX_BODY, declaration: str = "") -> bytes:
    """A text of Word by hand. declaration: a document type in front of it."""
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    return archive(
        {
            "[Content_Types].xml": f"""<?xml version="1.0"?><Types xmlns="{types}">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml" ContentType="{word}.document.main+xml"/>
<Override PartName="/word/styles.xml" ContentType="{word}.styles+xml"/></Types>""",
            "_rels/.rels": f"""<?xml version="1.0"?><Relationships xmlns="{relations}">
<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>""",
            "word/_rels/document.xml.rels": f"""<?xml version="1.0"?><Relationships xmlns="{relations}">
<Relationship Id="r2" Type="{office}/styles" Target="styles.xml"/></Relationships>""",
            "word/styles.xml": f"""<?xml version="1.0"?><w:styles {_W}>
<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style></w:styles>""",
            "word/document.xml": f"""<?xml version="1.0"?>{declaration}
<w:document {_W}><w:body>{body}</w:body></w:document>""",
            "docProps/core.xml": CORE,
        }
    )


def pptx() -> bytes:
    from pptx import Presentation
    from pptx.util import Inches

    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Coffee"
    slide.placeholders[1].text_frame.text = "Beans are roasted."
    slide.placeholders[1].text_frame.add_paragraph().text = "And ground."
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for row, cells in enumerate([["bean", "origin"], ["arabica", "Ethiopia"]]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    presentation.core_properties.title = "All about coffee"
    out = io.BytesIO()
    presentation.save(out)
    return out.getvalue()


def xlsx() -> bytes:
    import xlsxwriter

    out = io.BytesIO()
    workbook = xlsxwriter.Workbook(out, {"in_memory": True})
    sheet = workbook.add_worksheet("Volcanoes")
    for number, row in enumerate(
        [["name", "metres", "note"], ["Etna", 3357, "a | b\nc"], ["Fuji", 3776.5, ""]]
    ):
        sheet.write_row(number, 0, row)
    workbook.add_worksheet("Empty")
    workbook.close()
    return out.getvalue()


def odt() -> bytes:
    import odfdo

    document = odfdo.Document("text")
    document.body.clear()
    document.body.append(odfdo.Header(1, "Vaccines"))
    document.body.append(odfdo.Paragraph("They teach the body."))
    table = odfdo.Table("doses", width=2, height=2)
    table.set_values([["vaccine", "doses"], ["polio", 4]])
    document.body.append(table)
    document.meta.set_title("On vaccines")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def epub(chapters: Sequence[str] = ("<h1>One</h1><p>First.</p>", "<h1>Two</h1><p>Second.</p>")) -> bytes:
    items = "".join(
        f'<item id="c{i}" href="ch%20{i}.xhtml" media-type="application/xhtml+xml"/>'
        for i in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    parts: dict[str, Any] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>""",
        "OPS/book.opf": f"""<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A book</dc:title><dc:language>en</dc:language>
<dc:creator>Ada</dc:creator></metadata><manifest>
<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>{items}</manifest>
<spine><itemref idref="nav"/>{spine}</spine></package>""",
        "OPS/nav.xhtml": "<html><body><nav><ol><li>contents</li></ol></nav></body></html>",
    }
    for i, body in enumerate(chapters):
        parts[f"OPS/ch {i}.xhtml"] = f"""<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{body}</body></html>"""
    return archive(parts)


def eml(*, html: bool = False, attachment: bool = True) -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <a@example.org>", "bob@example.org", "Grüße"
    message["Date"] = "Wed, 04 May 2011 12:00:00 +0200"
    if html:
        message.set_content("<p>Dear <b>Bob</b></p>", subtype="html")
    else:
        message.set_content("Dear Bob,\n\nthe piano is here.\n")
    if attachment:
        message.add_attachment(b"x", maintype="application", subtype="pdf", filename="bill.pdf")
    return message.as_bytes()
