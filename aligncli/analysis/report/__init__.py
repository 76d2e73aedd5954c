"""A run, or several side by side, as one HTML file that needs nothing else: tables, charts, photographs.

facts.py reads run folders, drawings.py draws the charts, gallery.py picks and draws images, sections.py and
detections.py say what the page holds, page.py and page.html make it, embed.py its pictures, write.py the files.
Names of files and classes are data everywhere: never markup.
"""
