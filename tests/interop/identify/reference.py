"""Section 8 of the contract without its content rules, in a second implementation: what `file` says becomes a type.

The tables are those of streams.md 8.2 and 8.3 as they are written there; see `matcher` for the notation of the first.
"""
import re, struct, zipfile

# Type and test, in order. `^x` begins a line, `x .. y` is x and later y, a bar is either.
MAGIC_RULES = """
archive/tnef	"transport neutral encapsulation format"
archive/chm	"ms windows htmlhelp data"
executable/windows/dll64	"^pe32+ " .. "dll" .. "x86-64"
executable/windows/pe64	"^pe32+ " .. "x86-64" .. "windows"
executable/windows/dll32	"^pe32 " .. "dll"
executable/windows/pe32	"^pe32 " .. "windows"
executable/windows/dll64	"^pe32+" .. "ms windows" .. "(dll)"
executable/windows/pe64	"^pe32+" .. "ms windows"
executable/windows/pe	"^pe unknown" .. "windows"
executable/dll32	"^pe32+ executable (dll)"
executable/pe32	"^pe32+ executable"
executable/windows/dos	"^dos executable" | "^ms-dos executable"
executable/windows/com	"^com executable"
executable/windows/dos	"^8086 relocatable"
executable/linux/elf32	"^elf 32-bit " .. "executable"
executable/linux/elf64	"^elf 64-bit " .. "executable"
executable/linux/so32	"^elf 32-bit " .. "shared object"
executable/linux/so64	"^elf 64-bit " .. "shared object"
executable/linux/elf32	"^elf 32-bit lsb"
executable/linux/elf64	"^elf 64-bit lsb"
executable/mach-o	"^mach-o"
archive/7-zip	"^7-zip archive data"
archive/ace	"^ace archive data"
archive/arj	"^arj archive data"
archive/bzip2	"^bzip2 compressed data"
archive/cabinet	"^installshield cab"
archive/cabinet	"^microsoft cabinet archive data"
archive/cpio	"cpio archive"
archive/gzip	"^gzip compressed data"
archive/iso	"iso 9660"
archive/lzma	"^lzma compressed data"
archive/rar	"^rar archive data"
archive/squashfs	"^squashfs filesystem"
archive/tar	"^gnu tar archive" | "^posix tar archive"
archive/xz	"^xz compressed data"
archive/zip	"^zip archive data"
network/tcpdump	"^tcpdump" | "^pcap"
document/pdf	"^pdf document"
image/bmp	"^pc bitmap"
image/bmp	"^device independent bitmap graphic"
image/gif	"^gif image data"
image/jpg	"^jpeg image data"
image/png	"^png image data"
image/icon	"^ms windows icon resource"
image/tiff	"^tiff image"
installer/windows	"installation database" | "windows installer" | "advanced installer"
document/office/excel	"microsoft" .. "excel"
document/office/powerpoint	"microsoft" .. "powerpoint"
document/office/word	"microsoft" .. "word"
document/office/visio	"microsoft" .. "visio"
document/office/rtf	"rich text format"
document/office/sylk	"^spreadsheet interchange document"
document/office/passwordprotected	"^cdfv2 encrypted"
document/office/ole	"ole 2"
document/office/unknown	"composite document file" | "cdfv2"
document/office/unknown	"microsoft" .. ("ooxml" | "document")
document/office/unknown	"number of characters" | "number of pages" | "number of words"
audiovisual/flash	"macromedia flash"
archive/rpm	"^rpm "
archive/deb	"^debian binary package"
archive/ar	"ar archive"
code/autorun	"microsoft windows autorun"
code/batch	"dos batch file"
android/apk	"^dalvik dex" | "android package (apk)"
java/jar	re: [ (]jar[ )]
java/java	"java program"
code/class	"java class data"
code/perl	"perl " .. "script"
code/php	"php script"
code/python	"python " .. ("script" | "byte")
code/shell	"shell script" | "sh script"
code/xml	"opengis kml"
sff	"frame format"
meta/shortcut/windows	"^ms windows shortcut"
document/email	"mime entity text"
document/email	"mime entity, ascii text"
document/email	"^message/rfc822"
document/email	"^smtp mail"
document/email	"^rfc 822 mail"
document/email	"^news or mail,"
metadata/sysmon	"ms windows vista event log"
code/html	"html"
code/sgml	"sgml"
document/xml	"xml"
text/plain	"^ascii text"
text/plain	"^unicode " .. "text"
text/plain	"^iso-8859 text"
text/plain	mime: text/
unknown	any
"""

# Type, then the mime names that are trusted to mean it.
TRUSTED_MIMES = """
android/apk application/vnd.android.package-archive
application/chrome/extension application/x-chrome-extension
application/mozilla/extension application/x-xpinstall
application/torrent application/x-bittorrent application/x-torrent
archive/7-zip application/x-7z-compressed
archive/ar application/x-archive
archive/arc application/x-arc
archive/arj application/x-arj
archive/bzip2 application/x-bzip2
archive/cabinet application/vnd.ms-cab-compressed
archive/cpio application/x-cpio
archive/gzip application/gzip
archive/iso application/x-iso9660-image
archive/lzh application/x-lzh-compressed
archive/lzip application/x-lzip
archive/rar application/x-rar
archive/szdd application/x-ms-compress-szdd
archive/tar application/x-tar application/x-tarapplication/x-dbt
archive/tnef application/vnd.ms-tnef
archive/vhd application/x-virtualbox-vhd
archive/xz application/x-xz
archive/zip application/zip
archive/zlib application/zlib
archive/zstd application/x-zstd application/zstd
audio/midi audio/midi audio/x-midi
audio/mp2 audio/mp2 audio/x-mp2
audio/mp3 audio/mp3 audio/mpeg audio/mpg audio/x-mp3 audio/x-mpeg audio/x-mpg
audio/mp4 audio/m4a audio/x-m4a audio/x-mp4a-latm
audio/ogg audio/ogg audio/x-ogg
audio/s3m audio/s3m audio/x-s3m
audio/wav audio/vnd.wav audio/wav audio/x-wav
code/autorun application/x-setupscript
code/batch text/x-msdos-batch
code/php text/x-php
code/python text/x-python text/x-script.python
code/sgml text/sgml
code/shell text/x-shellscript
code/xml text/xml
db/dbf application/x-dbf
db/odt application/vnd.oasis.opendocument.database
db/sqlite application/x-sqlite3
document/email message/rfc822
document/epub application/epub+zip
document/installer/windows application/vnd.ms-msi application/x-msi
document/lotus/spreadsheet application/vnd.lotus-1-2-3
document/odt/chart application/vnd.oasis.opendocument.chart application/vnd.oasis.opendocument.chart-template
document/odt/formula application/vnd.oasis.opendocument.formula application/vnd.oasis.opendocument.formula-template
document/odt/graphics application/vnd.oasis.opendocument.graphics application/vnd.oasis.opendocument.graphics-flat-xml
document/odt/graphics application/vnd.oasis.opendocument.graphics-template
document/odt/presentation application/vnd.oasis.opendocument.presentation
document/odt/presentation application/vnd.oasis.opendocument.presentation-flat-xml
document/odt/presentation application/vnd.oasis.opendocument.presentation-template
document/odt/spreadsheet application/vnd.oasis.opendocument.spreadsheet
document/odt/spreadsheet application/vnd.oasis.opendocument.spreadsheet-flat-xml
document/odt/spreadsheet application/vnd.oasis.opendocument.spreadsheet-template
document/odt/text application/vnd.oasis.opendocument.text application/vnd.oasis.opendocument.text-flat-xml
document/odt/text application/vnd.oasis.opendocument.text-master
document/odt/text application/vnd.oasis.opendocument.text-master-template
document/odt/text application/vnd.oasis.opendocument.text-template
document/odt/web application/vnd.oasis.opendocument.web
document/office/email application/vnd.ms-outlook
document/office/excel application/vnd.ms-excel application/vnd.openxmlformats-officedocument.spreadsheetml.sheet
document/office/hwp application/x-hwp
document/office/passwordprotected application/encrypted
document/office/powerpoint application/vnd.ms-powerpoint
document/office/powerpoint application/vnd.openxmlformats-officedocument.presentationml.presentation
document/office/rtf text/rtf
document/office/word application/msword application/vnd.openxmlformats-officedocument.wordprocessingml.document
document/pdf application/pdf
document/ps application/postscript
executable/mach-o application/x-mach-binary
image/bmp image/bmp image/x-bmp image/x-ms-bmp
image/cursor image/x-win-bitmap
image/gif image/gif
image/icon application/ico image/ico image/icon image/vnd.microsoft.icon image/x-icns image/x-ico image/x-icon
image/icon text/ico
image/jpg image/jpeg image/pjpeg
image/png image/png
image/svg image/svg image/svg+xml
image/tga image/x-icb image/x-tga
image/tiff image/tiff
image/webp image/webp
image/wmf image/wmf
java/class application/x-java-applet
java/jar application/java-archive
metadata/iccprofile application/vnd.iccprofile
metadata/sysmon/evt application/x-ms-evtx
network/tcpdump application/vnd.tcpdump.pcap
python/bytecode application/x-bytecode.python text/x-bytecode.python
resource/font/opentype application/vnd.ms-opentype
resource/font/x11 application/x-font-sfn
resource/mo application/x-gettext-translation
text/calendar text/calendar
text/ini application/x-wine-extension-ini
text/json application/json
text/plain text/html text/x-c text/x-c++ text/x-java
text/troff text/troff
text/windows/registry text/x-ms-regedit
video/asf video/x-ms-asf
video/avi video/avi video/msvideo video/x-avi video/x-msvideo
video/divx video/divx video/vnd.divx
video/mp4 video/mp4
video/quicktime video/quicktime
"""


def matcher(test):
    """A function of the magic and mime lines, in lower case, for one test of the table."""
    if test == "any":
        return lambda magics, mimes: any(magics)
    if test.startswith("mime: "):
        return lambda magics, mimes: any(test[6:] in mime for mime in mimes)
    if test.startswith("re: "):
        return lambda magics, mimes: any(re.search(test[4:], line) for line in magics)
    tokens = re.findall(r'"[^"]*"|\.\.|[|()]', test)
    pattern = "".join(".*" if token == ".." else token if token in "|()" else quoted(token) for token in tokens)
    compiled = re.compile(pattern)
    return lambda magics, mimes: any(compiled.search(line) for line in magics)


def quoted(token):
    text = token[1:-1]
    return "^" + re.escape(text[1:]) if text.startswith("^") else re.escape(text)


RULES = [(kind, matcher(test)) for kind, test in (line.split("\t") for line in MAGIC_RULES.strip().splitlines())]
MIMES = {mime: words[0] for words in map(str.split, TRUSTED_MIMES.strip().splitlines()) for mime in words[1:]}
# What a type that the table lacks is reported as.
RENAMED = {"metadata/sysmon/evt": "metadata/sysmon"}


def file_type(magics, mimes, path):
    """The type before content rules; `unknown` and `text/plain` are what those look at."""
    if not magics:
        return "unknown"
    lower, lower_mimes = [line.lower() for line in magics], [line.lower() for line in mimes]
    kind = next((kind for kind, holds in RULES if holds(lower, lower_mimes)), "unknown")
    if kind in ("unknown", "text/plain"):
        kind = next((MIMES[mime] for mime in mimes if mime in MIMES), kind)
    with open(path, "rb") as stream:
        head = stream.read(32000)
    kind = indicated(kind, head) or kind
    kind = refined(kind, head, path)
    return RENAMED.get(kind, kind)


def indicated(kind, head):
    def score(strong, weak=()):
        count = lambda pattern: min(100, len(re.findall(pattern, head, re.S)))
        return 15 * sum(map(count, strong)) + sum(map(count, weak))
    scores = []
    if kind == "unknown":
        headers = [rb"[^\n]From: ", rb"[^\n]To: ", rb"[^\n]Subject: ", rb"[^\n](?:Mime|MIME)-Version: 1."]
        scores.append((score(headers), "document/email"))
    if kind in ("unknown", "text/plain"):
        words = "lsdpriority lsdlocked lsdqformat lsdsemihidden listlevel leveltemplateid theme wrapdefault".split()
        opened = "revtim creatim leveltext object".split()
        weak = [rb"\\" + word.encode() for word in words] + [rb"\{\\" + word.encode() for word in opened]
        scores.append((score([rb"\A\{\\\s*rt"], weak), "document/office/rtf"))
    if kind == "unknown":
        scores.append((score([rb"\AHBS_SECTUS_BIOPSY:"]), "meta/memory/biopsy"))
    best = max((points for points, _ in scores), default=0)
    return next((name for points, name in scores if points == best), None) if best >= 15 else None


def refined(kind, head, path):
    stepped = False
    if kind in ("document/office/unknown", "archive/zip", "java/jar", "unknown"):
        stepped = True
        try:
            with zipfile.ZipFile(path) as archive:
                kind = zip_type(archive.namelist())
        except Exception:  # whatever zipfile dislikes is no archive here
            pass
    if kind == "unknown" and len(head) > 38 and head[:14] == b"CART" + struct.pack("<HQ", 1, 0):
        stepped, kind = True, "archive/cart"
    if kind == "executable/windows/dos" and not stepped:
        kind = dos_type(head)
    if kind == "document/pdf":
        with open(path, "rb") as stream:
            content = stream.read()
        if b"/Encrypt" in content:
            kind += "/passwordprotected"
        elif b"/Type/Catalog/Collection" in content:
            kind += "/portfolio"
    return kind


def zip_type(names):
    under = lambda folder: [name for name in names if name.startswith(folder)]
    meta = under("META-INF/")
    others = [name for name in names if not name.startswith("META-INF/")]
    code = [name for name in others if name.endswith((".class", ".jar"))]
    jar = bool(meta) or 2 * len(code) > len(names)
    if jar and "AndroidManifest.xml" in names and "classes.dex" in names:
        return "android/apk"
    if any(name.startswith("Payload/") and name.endswith(".app/Info.plist") for name in names):
        return "ios/ipa"
    if jar:
        return "java/jar"
    if (under("docProps/") or under("_rels/")) and "[Content_Types].xml" in names:
        for folder, kind in (("word/", "word"), ("xl/", "excel"), ("ppt/", "powerpoint")):
            if under(folder):
                return "document/office/" + kind
        packaged = any(name.startswith("package/services/metadata/core-properties/") for name in names)
        if packaged and any(name.endswith(".nuspec") for name in names):
            return "archive/zip"
        return "document/office/unknown"
    return "archive/zip"


def dos_type(head):
    dos = "executable/windows/dos"
    if len(head) < 48:
        return "unknown"
    if len(head) < 64 or head[:2] != b"MZ":
        return dos
    at = struct.unpack_from("<I", head, 0x3C)[0]
    if at > len(head) - 24 or head[at:at + 4] != b"PE\0\0":
        return dos
    machine, flags = struct.unpack_from("<H", head, at + 4)[0], struct.unpack_from("<H", head, at + 22)[0]
    width = {0x014C: "32", 0x8664: "64"}.get(machine)
    kind = "dll" if flags & 0x2000 else "pe" if flags & 2 else None
    return f"executable/windows/{kind}{width}" if width and kind else dos
