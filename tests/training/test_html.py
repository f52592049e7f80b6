"""Pages that need nothing but themselves."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from sonoloop_training.page import Page, image_to_uri, new_figure


def test_every_text_is_escaped():
    evil = '<script>alert("x")</script>'
    page = Page(evil)
    page.heading(evil)
    page.paragraph(evil)
    page.table([evil], [[evil]], caption=evil)
    page.images([(np.zeros((8, 9), np.uint8), evil)], caption=evil)
    with new_figure() as figure:
        figure.subplots()
        page.figure(figure, evil)
    html = page.to_html()
    assert "<script" not in html
    # the title twice, heading, paragraph, three in the table, image caption twice, its row, figure twice
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") == 12


def test_columns_of_numbers_stand_right():
    page = Page("t")
    page.table(["name", "count", "share"], [["a", 3, "40 %"], ["1, 2", "1,412", "-"]])
    html = page.to_html()
    assert '<td>a</td><td class="number">3</td><td class="number">40 %</td>' in html
    assert '<th>name</th><th class="number">count</th>' in html


def test_a_row_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"a row has 1 cells, the header 2: \['a'\]"):
        Page("t").table(["x", "y"], [["a"]])


def test_images_keep_their_shape_and_are_shrunk():
    pixels = np.zeros((600, 300, 3), np.uint8)
    pixels[:300] = (200, 30, 30)
    data = base64.b64decode(image_to_uri(pixels, side=100).removeprefix("data:image/jpeg;base64,"))
    image = Image.open(io.BytesIO(data))
    assert (image.size, image.format) == ((50, 100), "JPEG")
    red, green, _ = image.getpixel((25, 20))
    assert red > 180 and green < 60


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8)])
def test_other_pixels_are_refused(pixels):
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(H, W\) or \(H, W, 3\), got"):
        image_to_uri(pixels)


def test_a_figure_is_a_png_inside_the_page():
    page = Page("t")
    with new_figure(width=2, height=1) as figure:
        figure.subplots().plot([1, 2])
        page.figure(figure, "a line")
    found = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="a line">', page.to_html())
    assert Image.open(io.BytesIO(base64.b64decode(found[1]))).size == (220, 110)
