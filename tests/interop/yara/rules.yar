import "elf"
import "hash"
import "math"

rule an_elf { meta: weight = 1 strings: $magic = { 7f 45 4c 46 } condition: $magic at 0 and elf.type != 99 }
rule a_script { strings: $a = /^#!\s?\/[a-z\/]+(sh|python|perl)/ condition: $a at 0 }
rule words { strings: $a = "usage" nocase $b = "error" wide ascii fullword $c = "license" nocase fullword condition: 2 of them }
rule jumps { strings: $a = { 48 8b [2-6] ( 48 | 4c ) 8? ?? } condition: #a > 3 }
rule encoded { strings: $a = "library" base64 $b = "library" xor(1-255) condition: any of them }
rule dense { condition: filesize > 0 and math.entropy(0, filesize) > 7.2 }
rule digest { condition: hash.md5(0, filesize) == "d41d8cd98f00b204e9800998ecf8427e" }
rule loops { strings: $a = "lib" condition: for any i in (1..#a) : (@a[i] % 16 == 0) }
private rule hidden { condition: filesize > 1KB }
rule large : size { condition: hidden and filesize > 100KB }
rule named { condition: extension == "py" or filename matches /^[a-d]/ }
