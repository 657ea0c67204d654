/*
 * What a text is: the content rules (streams.md 8.6), in their order, compiled once per scanner.
 *
 * `type` and `score` are read by `content/rules.rs`: a rule without a score has that of the matching rule before it. The
 * variables `mime`, `magic` and `type` are of the file: first non-empty mime line, first magic line, type so far.
 *
 * A line begins after (^|[\r\n]), because ^ is the beginning of the file. Strings whose place or number matters are kept
 * as plain as can be: each of their matches is remembered.
 */

/* ---- scripts ---- */

rule code_javascript {
    meta:
        type = "code/javascript"
        score = 1
    strings:
        $markup = /^\s*<[\w!?\/%]/ ascii wide

        $strong_eval = /\beval[ \t]*\([ \t]*["']/ ascii wide
        $strong_activex = /new[ \t]+ActiveXObject[ \t]*\(/ ascii wide
        $strong_dictionary = "Scripting.Dictionary" ascii wide
        $strong_unescape = /\bunescape[ \t]*\(/ ascii wide
        $strong_element = ".createElement(" ascii wide
        $strong_submit = /\bsubmitForm[ \t]*\(/ ascii wide
        $strong_member = /\b(document|window)(\.[A-Za-z]|\[["'])/ ascii wide
        $strong_timeout = /\bsetTimeout[ \t]*\(/ ascii wide
        $strong_assign = /(^|[\s;{}(])(var|let|const)[ \t]+[\w$]+[ \t]*=[ \t]*[^=\s]/ ascii wide
        $strong_location = /\blocation\.href[ \t]*=/ ascii wide
        $strong_catch = /\}[ \t\r\n]*catch[ \t]*(\([ \t]*[\w$]+[ \t]*\))?[ \t\r\n]*\{/ ascii wide
        $strong_pref = /\buser_pref[ \t]*\(/ ascii wide
        $strong_alert = /\balert[ \t]*\(/ ascii wide
        $strong_char_at = /\.charAt[ \t]*\(/ ascii wide
        $strong_decode = /\bdecodeURIComponent[ \t]*\(/ ascii wide
        $strong_char_code = /\.charCodeAt[ \t]*\(/ ascii wide
        $strong_to_string = /\.toString[ \t]*\(/ ascii wide

        $weak_from_char_code = /\bfromCharCode\b/ ascii wide
        $weak_math = /\bMath\.(abs|ceil|floor|max|min|pow|random|round|sqrt)[ \t]*\(/ ascii wide
        $weak_test = /\b(isNaN|isFinite|parseInt|parseFloat)[ \t]*\(/ ascii wide
        $weak_case = /\.to(Lower|Upper)Case[ \t]*\(/ ascii wide
        $weak_this = /\bthis\.[\w$]/ ascii wide
        $weak_length = /[\w$\])]\.length\b/ ascii wide
        $weak_substr = /\.substr(ing)?[ \t]*\(/ ascii wide

        $function = /\bfunction([ \t]+[\w$]+)?[ \t]*\([ \t\w$,=.]*\)[ \t\r\n]*\{/ ascii wide
        $empty_function = /\bfunction([ \t]+[\w$]+)?[ \t]*\([ \t]*\)[ \t\r\n]*\{/ ascii wide
        $empty_call = /[\w$]\([ \t]*\)[ \t]*;/ ascii wide
    condition:
        not $markup and (
            (mime == "application/octet-stream" and 4 of ($strong_*)) or
            ((mime startswith "text" or mime == "application/javascript") and (
                2 of ($strong_*) or
                (any of ($strong_*) and 2 of ($weak_*)) or
                ($function and (any of ($strong_*) or 2 of ($weak_*))) or
                ($empty_function and $empty_call)
            ))
        )
}

rule code_jscript {
    meta:
        type = "code/jscript"
        score = 5
    strings:
        $activex = "ActiveXObject" ascii wide
        $get = /\bGetObject[ \t]*\(/ ascii wide
        $create = /\bWScript\.CreateObject[ \t]*\(/ nocase ascii wide
        $conditional = /(\/\*|\/\/)[ \t]*@(cc_on|if|set)\b/ ascii wide
    condition:
        code_javascript and any of them
}

rule code_xfa {
    meta:
        type = "code/xfa"
        score = 5
    strings:
        $namespace = "http://www.xfa.org/schema/xfa-template/"
        $members = /\bxfa\.[A-Za-z]\w*\.[A-Za-z]/
        $one_of = "ui.oneOfChild"
    condition:
        $namespace in (0..256) and ($members or $one_of)
}

rule code_vbs {
    meta:
        type = "code/vbs"
        score = 2
    strings:
        $here_string = /\$\w+[ \t]*=[ \t]*@["']/ ascii wide

        $strong_resume = /\bOn[ \t]+Error[ \t]+Resume[ \t]+Next\b/ nocase ascii wide
        $strong_header = /(^|[\r\n])[ \t]*((Private|Public)[ \t]+)?(Sub|Function)[ \t]+\w+[ \t]*\([^)\r\n{]*\)[ \t]*[\r\n]/ nocase ascii wide
        $strong_end = /(^|[\r\n])[ \t]*End[ \t]+(Function|Sub|If|Module)[ \t]*([\r\n':]|$)/ nocase ascii wide
        $strong_global = /\bExecuteGlobal\b/ nocase ascii wide
        $strong_assign = /(^|[\r\n:])[ \t]*(Set|Attribute|Const)[ \t]+[\w.]+[ \t]*=[ \t]*[^ \t]/ nocase ascii wide
        $strong_raise = /\bErr\.Raise\b/ nocase ascii wide
        $strong_replace = /[^.\w>:$]Replace[ \t]?\(/ nocase ascii wide
        $strong_create = /[^.\w>:$]CreateObject[ \t]?\(/ nocase ascii wide
        $strong_create_in = /\bWScript\.CreateObject[ \t]?\(/ nocase ascii wide
        $strong_get = /[^.\w>:$]GetObject[ \t]?\(/ nocase ascii wide
        $strong_eval = /[^.\w>:$]Eval[ \t]?\(/ nocase ascii wide
        $strong_execute = /(^|[\r\n:])[ \t]*Execute[ \t]*[ \t("]/ nocase ascii wide
        $strong_box = /\bMsgBox\b/ nocase ascii wide
        $strong_array = /(^|[\s:])[A-Za-z]\w*[ \t]*=[ \t]*Array[ \t]?\(/ nocase ascii wide
        $strong_chr = /&[ \t]*ChrW?[ \t]?\(/ nocase ascii wide

        $dim = /(^|[\r\n:])[ \t]*Dim[ \t]+[A-Za-z_]/ nocase ascii wide

        $file_system = "Scripting.FileSystemObject" nocase ascii wide
        $file_open = "OpenAsTextStream" nocase ascii wide
        $file_create = "CreateTextFile" nocase ascii wide
    condition:
        not code_javascript and not $here_string and (
            2 of ($strong_*) or
            (any of ($strong_*) and (#dim >= 2 or 2 of ($file_*)))
        )
}

/* ---- markup ---- */

rule code_xml {
    meta:
        type = "code/xml"
    strings:
        $declaration = /<\?xml[ \t\r\n]/ nocase ascii wide
        $element = /<xml[ \t\r\n][^>]{0,1024}xmlns[:=]/ nocase ascii wide
        $close = "</xml>" nocase ascii wide
    condition:
        $declaration in (0..3) or ($element and $close)
}

private rule lead {
    strings:
        $tag = /<[A-Za-z_][\w:.\-]*([ \t\r\n]+[\w:.\-]+[ \t]*=|[ \t\r\n]*\/?>)/ ascii wide
    condition:
        $tag in (0..256)
}

private rule trail {
    strings:
        $tag = /<\/[A-Za-z_][\w:.\-]*[ \t]*>\s*$/ ascii wide
    condition:
        $tag in (filesize - 256..filesize)
}

rule code_xml_tags {
    meta:
        type = "code/xml"
    condition:
        lead and trail
}

rule code_html_document {
    meta:
        type = "code/html"
        score = 10
    strings:
        $doctype = /<!DOCTYPE[ \t\r\n]+html/ nocase ascii wide
        $open = /<html[ \t\r\n>]/ nocase ascii wide
        $close = "</html>" nocase ascii wide
    condition:
        $doctype in (0..256) or $open in (0..256) or $close in (filesize - 256..filesize)
}

rule code_html_tags {
    meta:
        type = "code/html"
        score = 10
    strings:
        $comment = "<!--" ascii wide
        $comment_end = "-->" ascii wide
        $tag = /(^|[\r\n])[ \t]*<(html|head|title|body|div|span|table|tbody|thead|script|style|form|iframe|center|font|h[1-6]|nav|section|article|header|footer|button|textarea|fieldset|frameset|noscript|blockquote)[ \t\r\n>]/ nocase ascii wide
    condition:
        (lead or $comment in (0..64)) and (trail or $comment_end in (filesize - 64..filesize)) and $tag
}

rule code_html_void {
    meta:
        type = "code/html"
        score = 10
    strings:
        $tag = /(^|[\r\n])[ \t]*<(body|area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)[ \t\r\n\/>]/ nocase ascii wide
    condition:
        lead and $tag
}

rule code_hta {
    meta:
        type = "code/hta"
        score = 12
    strings:
        $tag = /(^|[\r\n>])[ \t]*<hta:application[ \t\r\n\/>]/ nocase ascii wide
    condition:
        $tag
}

rule code_html_component {
    meta:
        type = "code/html/component"
        score = 10
    strings:
        $open = /<public:component[ \t\r\n>]/ nocase
        $close = "</public:component>" nocase
        $script = /<script[ \t\r\n>]/ nocase
        $language = /\blanguage[ \t]*=[ \t]*["']?(javascript|jscript|vbscript)\b/ nocase
    condition:
        all of them
}

/* ---- documents ---- */

rule document_email {
    meta:
        type = "document/email"
        score = 15
    strings:
        $from = /(^|\n)From:[ \t]/ nocase
        $version = /(^|\n)MIME-Version:[ \t]/ nocase
        $to = /(^|\n)To:[ \t]/ nocase
        $subject = /(^|\n)Subject:[ \t]/ nocase
        $date = /(^|\n)Date:[ \t]/ nocase
        $multipart = /(^|\n)Content-Type:[ \t]*multipart\/[\w\-]+;[^:]{0,256}boundary=/ nocase
        $html = /(^|\n)Content-Type:[ \t]*text\/html/ nocase
        $html_tag = /<html[ \t\r\n>]/ nocase
    condition:
        $from and ($version or ($to and $subject and $date)) and
        ($multipart or ($html and $html_tag and @html_tag[#html_tag] > @html[1]))
}

rule log_vipermonkey {
    meta:
        type = "log/vipermonkey"
        score = 20
    strings:
        $double_ruler = "==============================================================================="
        $ruler = "-------------------------------------------------------------------------------"
        $path = /(^|[\r\n])FILE:[ \t]+[^\r\n]/
        $macro = "VBA MACRO "
        $file = "in file: "
        $collapsed = "VBA CODE (with long lines collapsed):"
        $parsing = "PARSING VBA CODE:"
    condition:
        all of them
}

rule text_json {
    meta:
        type = "text/json"
        score = 2
    strings:
        $bare = /^\{\s*[A-Za-z_$]\w*\s*:/
        $key = /"[^"\r\n]{1,128}"[ \t\r\n]*:[ \t\r\n]*["\[{\dtfn\-]/
    condition:
        uint8(0) == 0x7b and uint8(filesize - 1) == 0x7d and not $bare and $key
}

/* ---- programs ---- */

rule code_csharp {
    meta:
        type = "code/csharp"
        score = 1
    strings:
        $namespace = /(^|[\r\n])[ \t]*namespace[ \t]+[A-Za-z_][\w.]*[ \t]*[\r\n{;]/
        $using = /(^|[\r\n])[ \t]*using[ \t]+[A-Za-z_][\w.]*;/
        $class = /\b(public|internal)[ \t]+((static|sealed|abstract|partial)[ \t]+)*class[ \t]+[A-Za-z_]/
        $fixed = /\bfixed[ \t]*\(/
        $override = /\boverride[ \t]+[A-Za-z_]\w*[ \t]+[A-Za-z_]/
        $import = "[DllImport("
        $assembly = /\[assembly:[ \t]*[A-Za-z_]/
        $white = "IsNullOrWhiteSpace("
    condition:
        mime startswith "text" and 2 of them
}

rule code_php {
    meta:
        type = "code/php"
    strings:
        $open = /(^|[\r\n])[ \t]*<\?(php[ \t\r\n]|[ \t\r\n=])/ nocase
        $namespace = /\bnamespace[ \t]+[A-Za-z_\\][\w\\]*[ \t]*;/
        $function = /\bfunction[ \t]+&?\w*[ \t]*\([^)\r\n]{0,200}\$\w/
        $eval = /\beval[ \t]*\(/
        $this = "$this->"
        $require = /\brequire(_once)?[ \t(][^;\r\n]{0,200}\.php["']/
    condition:
        mime startswith "text" and $open in (0..256) and
        ($namespace or $function or $eval or $this or $require)
}

rule code_jsp {
    meta:
        type = "code/jsp"
        score = 3
    strings:
        $tag = /<jsp:[A-Za-z]/
        $tag_end = /<\/jsp:[A-Za-z]/
        $directive_page = /<%@[ \t\r\n]*page[ \t\r\n]/
        $directive_include = /<%@[ \t\r\n]*include[ \t\r\n]/
        $directive_taglib = /<%@[ \t\r\n]*taglib[ \t\r\n]/
        $open = "<%"
        $close = "%>"
        $java_import = /\bimport[ \t]*=?[ \t]*"?java[.x]/
        $java_request = /\brequest\.get\w+[ \t]*\(/
        $java_out = /\bout\.print(ln)?[ \t]*\(/
        $java_session = /\bsession\.(get|set)\w+[ \t]*\(/
        $java_string = /\bString(\[\])?[ \t]+\w+[ \t]*=/
        $java_new = /\bnew[ \t]+(java\.|File|String|Array|Buffered|Scanner|Process)/
        $java_runtime = "Runtime.getRuntime("
    condition:
        mime startswith "text" and (
            ($tag and $tag_end) or
            2 of ($directive_*) or
            (#open >= 2 and #close >= 2 and 2 of ($java_*))
        )
}

rule code_ps1 {
    meta:
        type = "code/ps1"
        score = 1
    strings:
        $strong_new = /\bNew-(Object|Item|ItemProperty|Service|PSDrive|PSSession|LocalUser|ScheduledTask\w*)\b/ nocase ascii wide
        $strong_expression = /\bInvoke-Expression\b/ nocase ascii wide
        $strong_invoke = /\bInvoke-(WebRequest|RestMethod|Command|WmiMethod|CimMethod|Item|History)\b/ nocase ascii wide
        $strong_get = /\bGet-(Acl|ADUser|Alias|AuthenticodeSignature|ChildItem|CimInstance|Command|Content|Credential|Date|EventLog|ExecutionPolicy|Help|Host|Item|ItemProperty|Location|Member|Module|NetAdapter|Process|PSDrive|Random|Service|Variable|WinEvent|WmiObject)\b/ nocase ascii wide
        $strong_set = /\bSet-(Acl|Alias|Content|ExecutionPolicy|Item|ItemProperty|Location|MpPreference|Service|StrictMode|Variable)\b/ nocase ascii wide
        $strong_start = /\b(Start|Stop)-(BitsTransfer|Job|Process|Service|Sleep|Transcript)\b/ nocase ascii wide
        $strong_add_type = /\bAdd-Type\b/ nocase ascii wide
        $strong_defender = /\bAdd-MpPreference\b/ nocase ascii wide
        $strong_add = /\b(Add|Clear|Remove|Copy|Move|Rename)-(Content|Item|ItemProperty|Variable|Member)\b/ nocase ascii wide
        $strong_pipe = /\b(Where|Select|ForEach|Sort|Group|Measure|Compare)-Object\b/ nocase ascii wide
        $strong_select = /\bSelect-(String|Xml)\b/ nocase ascii wide
        $strong_write = /\b(Write-(Host|Output|Error|Verbose|Warning|EventLog)|Read-Host|Out-(File|Null|String|Host|GridView))\b/ nocase ascii wide
        $strong_convert = /\b(Convert(To|From)-(SecureString|Json|Csv|Html)|(Import|Export)-(Csv|Clixml|Module|PSSession))\b/ nocase ascii wide
        $strong_path = /\b(Test-(Path|Connection|NetConnection)|(Split|Join|Resolve)-Path)\b/ nocase ascii wide
        $strong_task = /\b(Un)?Register-(ScheduledTask|WmiEvent|ObjectEvent|EngineEvent)\b/ nocase ascii wide
        $strong_policy = /[ \t]-(ExecutionPolicy|ep|exec)[ \t]+["']?(Bypass|Unrestricted)\b/ nocase ascii wide
        $strong_parameter = /[ \t)]-(command|encodedcommand|enc|join|windowstyle|noprofile|erroraction|passthru|literalpath)[ \t]+["'$({@,\w]/ nocase ascii wide
        $strong_call = /(::|\.)(FromBase64String|GetString|DownloadString|DownloadFile|DownloadData)[ \t]*\(/ ascii wide
        $strong_client = /\bNet\.WebClient\b/ nocase ascii wide
        $strong_point = /\bServicePointManager\]/ nocase ascii wide
        $strong_encoding = /\[(System\.)?Text\.Encoding\]::/ nocase ascii wide
        $strong_to_int = /\[(System\.)?Convert\]::/ nocase ascii wide
        $strong_string = /\[(System\.)?String\]::(Join|Format|IsNullOrEmpty)\b/ nocase ascii wide
        $strong_bytes = /\[Byte\[\]\][ \t]*\$\w/ nocase ascii wide
        $strong_char = /\[char\][ \t]*\(?[ \t]*(0x)?\d/ nocase ascii wide
        $strong_foreach = /\bforeach[ \t]*\([ \t]*\$\w+[ \t]+in[ \t]/ nocase ascii wide
        $strong_iex = /\|[ \t]*iex\b/ nocase ascii wide
        $strong_home = "$PSHOME" nocase ascii wide

        $weak_assign = /(^|[\r\n;{(])[ \t]*\$(\w+:)?\w+[ \t]*\+?=[ \t]*[^=\s]/ ascii wide
        $weak_compare = /[\w)\]"'][ \t]+-[ci]?(eq|ne|lt|gt|le|ge)[ \t]+["'$(\-\d]/ nocase ascii wide
        $weak_match = /[\w)\]"'][ \t]+-[ci]?(not)?(match|like)[ \t]+["'$(]/ nocase ascii wide
        $weak_replace = /[\w)\]"'][ \t]*-[ci]?(replace|split)[ \t]*["'$(]/ nocase ascii wide
        $weak_contain = /[\w)\]"'][ \t]+-[ci]?(not)?(contains|in)[ \t]+["'$(@]/ nocase ascii wide
        $weak_type = /[\w)\]"'][ \t]+-(is|isnot|as)[ \t]+[\[$("']/ nocase ascii wide
        $weak_logic = /[)\w][ \t]+-(and|or|xor)[ \t]+[($!\-]/ nocase ascii wide
        $weak_function = /(^|[\r\n])[ \t]*function[ \t]+(\w+:)?\w+(-\w+)?[ \t\r\n]*(\([ \t\r\n]*[\[$)]|\{[ \t\r\n]*(param|\[CmdletBinding)\b)/ nocase ascii wide
    condition:
        (mime startswith "text" and (2 of ($strong_*) or (any of ($strong_*) and 3 of them) or 3 of ($weak_*))) or
        (mime == "application/octet-stream" and 3 of ($strong_*))
}

rule code_ps1_in_ps1 {
    meta:
        type = "code/ps1"
        score = 5
    strings:
        $cmdlet = /^[^\r\n]*\b(New|Get|Set|Add|Remove|Clear|Start|Stop|Invoke|Import|Export|Write|Read|Out|Where|Select|ForEach|Test|ConvertTo|ConvertFrom|Copy|Move|Register|Unregister)-[A-Za-z]{3,30}\b/ nocase ascii wide
        $after_powershell = /^[^\r\n]*p[\^%]{0,2}o[\^%]{0,2}w[\^%]{0,2}e[\^%]{0,2}r[\^%]{0,2}s[\^%]{0,2}h[\^%]{0,2}e[\^%]{0,2}l[\^%]{0,2}l[^\r\n]*\b(New|Get|Set|Add|Remove|Clear|Start|Stop|Invoke|Import|Export|Write|Read|Out|Where|Select|ForEach|Test|ConvertTo|ConvertFrom|Copy|Move|Register|Unregister)-[A-Za-z]{3,30}\b/ nocase ascii wide
    condition:
        code_ps1 and $cmdlet and not $after_powershell
}

rule code_ps1_in_batch {
    meta:
        type = "code/ps1"
        score = -1
    strings:
        $command = /(^|[\r\n@&|(])[ \t]*p[\^%]{0,2}o[\^%]{0,2}w[\^%]{0,2}e[\^%]{0,2}r[\^%]{0,2}s[\^%]{0,2}h[\^%]{0,2}e[\^%]{0,2}l[\^%]{0,2}l[\^% \t."]/ nocase ascii wide
    condition:
        code_ps1 and $command
}

rule code_ps1_command {
    meta:
        type = "code/ps1"
        score = 1
    strings:
        $word = /^\s*powershell\b/ nocase ascii wide
    condition:
        filesize < 12288 and $word
}

rule code_c {
    meta:
        type = "code/c"
        score = 1
    strings:
        $struct = /(^|[\r\n])(static[ \t]+)?(struct|const)[ \t]+[A-Za-z_]/
        $include = /(^|[\r\n])[ \t]*#[ \t]*include[ \t]*[<"]/
        $define = /(^|[\r\n])[ \t]*#[ \t]*(define|undef|ifdef|ifndef|pragma)[ \t]+[A-Za-z_]/
        $public = /(^|[\r\n])[ \t]*public:[ \t]*[\r\n]/
        $windows = /\b(ULONG|STDMETHOD(IMP)?(_\(|\())/
        $type = /\b(const[ \t]+char[ \t]*\*|extern[ \t]+["A-Za-z_]|u?int(8|16|32|64)_t[ \t])/
    condition:
        mime startswith "text" and 2 of them
}

rule code_h {
    meta:
        type = "code/h"
    strings:
        $define = /(^|[\r\n])[ \t]*#[ \t]*define[ \t]+\w+(\([^)\r\n]*\))?[ \t]+[^\s\/]/
        $not_defined = /(^|[\r\n])[ \t]*#[ \t]*if[ \t]+![ \t]*defined\b/
        $not_defined_too = /(^|[\r\n])[ \t]*#[ \t]*ifndef[ \t]/
        $end = /(^|[\r\n])[ \t]*#[ \t]*endif\b/
    condition:
        mime startswith "text" and not code_c and #define > 2 and ($not_defined or $not_defined_too or $end)
}

rule code_idl {
    meta:
        type = "code/idl"
    strings:
        $help = /\bhelpstring[ \t]*\([ \t]*"/
        $library = /\bimportlib[ \t]*\([ \t]*"[^"\r\n]{1,128}\.tlb"/ nocase
        $import = /\bimport[ \t]+"[^"\r\n]{1,128}\.idl"/ nocase
        $typedef = /\btypedef[ \t\r\n]*\[/
    condition:
        mime startswith "text" and 2 of them
}

rule code_glsl {
    meta:
        type = "code/glsl"
        score = 2
    strings:
        $version = /(^|[\r\n])[ \t]*#version[ \t]+\d/
        $precision = /(^|[\r\n])[ \t]*precision[ \t]+(lowp|mediump|highp)[ \t]+\w+;/
        $uniform = /(^|[\r\n])[ \t]*(layout[ \t]*\([^)\r\n]*\)[ \t]*)?uniform[ \t]+\w+[ \t]+\w/
    condition:
        mime startswith "text" and 2 of them
}

rule code_python {
    meta:
        type = "code/python"
        score = 3
    strings:
        $strong_main = /(^|[\r\n])[ \t]*if[ \t(]+__name__[ \t]*==[ \t]*["']__main__["']/
        $strong_from = /(^|[\r\n])[ \t]*from[ \t]+[A-Za-z_.][\w.]*[ \t]+import[ \t]+[A-Za-z_*(]/
        $strong_def = /(^|[\r\n])[ \t]*(async[ \t]+)?def[ \t]+[A-Za-z_]\w*[ \t]*\([^()]{0,500}\)[ \t]*(->[^:\r\n]{1,100})?:/
        $strong_block = /(^|[\r\n])[ \t]*(try|finally|else|except([ \t]+[\w.,() \t]{1,100})?)[ \t]*:[ \t]*([\r\n#]|$)/
        $strong_asyncio = /\basyncio\.(run|sleep|gather|create_task|get_event_loop)\(/
        $strong_pty = /\bpty\.spawn\(/
        $strong_platform = /\bplatform\.(system|machine|node|release|platform|uname)\(/
        $strong_subprocess = /\bsubprocess\.(Popen|run|call|check_call|check_output)\(/
        $strong_base64 = /\bbase64\.(b64decode|b64encode|b32decode|b85decode)\(/
        $strong_socket = /\bsocket\.(socket|gethostname|gethostbyname|create_connection)\(/
        $strong_requests = /\brequests\.(get|post|put|head|delete|request|Session)\(/
        $strong_urllib = /\burllib2?\.((request|parse)\.)?(urlopen|Request|urlretrieve|urlencode|quote|unquote|urlparse)\(/
        $strong_httpx = /\bhttpx\.(get|post|put|Client|AsyncClient)\(/
        $strong_os = /\bos\.(system|popen|getenv|getcwd|listdir|makedirs|mkdir|remove|walk|path\.(join|exists|dirname|isfile|abspath))\(/
        $strong_clip = /\bpyperclip\.(copy|paste)\(/
        $strong_clipboard = /\b(pandas|pd)\.read_clipboard\(/
        $strong_setup = /\bsetuptools\.(setup|find_packages)\(/
        $strong_escaped = /\beval\([ \t]*["']\\x/
        $exec = /\b(exec|eval)[ \t]*\([ \t]*((compile[ \t]*\([ \t]*)|(__import__[ \t]*\([ \t]*["'][\w\\]{1,64}["'][ \t]*\)|\w{1,32})\.){0,6}(decompress|b64decode|a85decode|b85decode|b32decode|unhexlify)[ \t]*\(/
        $exec_import = /\b(exec|eval)[ \t]*\([ \t]*__import__[ \t]*\([ \t]*["']((\\x[0-9a-f]{2}){3,16}|zlib|base64|marshal|bz2|lzma|codecs)["']/ nocase
        $loads = /\b(marshal|pickle|cPickle)\.loads[ \t]*\(/
    condition:
        mime startswith "text" and (
            2 of ($strong_*) or
            (filesize < 1024 and any of ($strong_*)) or
            $exec or $exec_import or $loads
        )
}

rule code_python_system {
    meta:
        type = "code/python"
        score = -2
    strings:
        $call = /__import__\([ \t]*["']os["'][ \t]*\)\.system\(/
    condition:
        mime startswith "text" and ($call at 0 or #call >= 2)
}

rule code_java {
    meta:
        type = "code/java"
        score = 2
    strings:
        $using = /(^|[\r\n])using[ \t]+[A-Za-z_][\w.]*;/

        $java_class = /(^|[\r\n])[ \t]*((public|private|protected|abstract|final|static)[ \t]+){1,4}(class|interface|enum)[ \t]+[A-Z]\w*/
        $java_field = /(^|[\r\n])[ \t]*(private|protected|public)[ \t]+((static|final|volatile|transient)[ \t]+){0,3}[A-Za-z][\w.<>\[\], ]{0,80}[ \t]+[A-Za-z_]\w*[ \t]*(=[^\r\n=]{0,200})?;/
        $java_throws = /\)[ \t\r\n]*throws[ \t]+[A-Z]\w*/
        $java_next = /\.hasNext\(/
        $java_final = /\bfinal[ \t]+[A-Za-z][\w.<>\[\]]*[ \t]+[A-Za-z_]\w*[ \t]*[=;,):]/
        $java_generic = /\b(Array|Linked)?(List|Collection|Iterator|Set|Map|HashMap|HashSet|TreeMap)<[ \t]*[A-Z?]/
        $java_package = /(^|[\r\n])package[ \t]+[a-z_][\w.]*;/
        $java_main = /\bpublic[ \t]+static[ \t]+void[ \t]+main[ \t]*\(/
        $java_import = /(^|[\r\n])import[ \t]+(static[ \t]+)?javax?\.[\w.*]+;/
        $java_print = /\bSystem\.(out|err)\.print(ln|f)?[ \t]*\(/
    condition:
        mime startswith "text" and not $using and 2 of ($java_*)
}

rule code_protobuf {
    meta:
        type = "code/protobuf"
        score = 3
    strings:
        $syntax = /(^|[\r\n])[ \t]*syntax[ \t]*=[ \t]*["']proto[23]["'][ \t]*;/
        $package = /(^|[\r\n])[ \t]*package[ \t]+google\.protobuf\b/
        $option = /(^|[\r\n])[ \t]*option[ \t]+[\w.()]+[ \t]*=[ \t]*[^;\r\n]{1,200};/
    condition:
        mime startswith "text" and 2 of them
}

rule code_clickonce {
    meta:
        type = "code/clickonce"
    strings:
        $open = /^\s*<(\w+:)?assembly[ \t\r\n][^>]{0,1024}xmlns/
        $close = /<\/(\w+:)?assembly>/
    condition:
        $open and $close
}

rule code_css {
    meta:
        type = "code/css"
    strings:
        $block = /[\w\]*][ \t\r\n]*\{[ \t\r\n]*(-webkit-|-moz-)?(align|animation|background|border|bottom|box|clear|color|content|cursor|display|flex|float|font|grid|height|justify|left|letter|line|list|margin|max|min|opacity|outline|overflow|padding|position|right|text|top|transform|transition|vertical|visibility|white|width|z-index)(-[a-z\-]{1,30})?[ \t]*:[ \t]*[\w#"'\-.]/ nocase
    condition:
        mime startswith "text" and mime != "text/html" and #block > 2
}

rule code_ducky {
    meta:
        type = "code/ducky"
    strings:
        $word = /(^|[\r\n])[ \t]*(DELAY|DEFAULT_?DELAY|STRING|STRINGLN|ENTER|GUI|WINDOWS|MENU|APP|SHIFT|ALT|CONTROL|CTRL|TAB|ESC|ESCAPE|SPACE|DELETE|UPARROW|UP|DOWNARROW|DOWN|LEFTARROW|RIGHTARROW|REPEAT|REM)[ \t\r\n]/
        $own = /(^|[\r\n])[ \t]*(DELAY[ \t]+\d|STRING(LN)?[ \t]+[^ \t=])/
    condition:
        mime startswith "text" and $own and #word >= 10
}

rule code_batch {
    meta:
        type = "code/batch"
        score = 2
    strings:
        $command_1 = /(^|[\r\n@&])[ \t]*echo[ \t.:\r\n]/ nocase ascii wide
        $command_2 = /(^|[\r\n@&])[ \t]*((netsh|schtasks|taskkill|tasklist|xcopy|robocopy|attrib|bitsadmin|certutil|cacls|icacls|takeown|wmic|vssadmin|wevtutil|bcdedit|regsvr32|rundll32|cscript|wscript|mshta|ipconfig|systeminfo|whoami|cls|pushd|popd|title)(\.exe)?([ \t]+["'\/\w%.:\\-]|[ \t]*[\r\n])|goto[ \t]+:?\w+[ \t]*([\r\n&)]|$)|call[ \t]+(:|"|%)|(copy|move|del|ren|erase|mkdir|rmdir|md|rd)[ \t]+("|%|\/[a-z]\b|[a-z]:\\))/ nocase ascii wide
        $command_3 = /(^|[\r\n@&])[ \t]*net1?(\.exe)?[ \t]+(accounts|continue|file|group|localgroup|pause|session|share|start|stop|time|use|user|view)\b/ nocase ascii wide
        $command_4 = /(^|[\r\n@&])[ \t]*reg(\.exe)?[ \t]+(add|compare|copy|delete|export|import|load|query|restore|save|unload)\b/ nocase ascii wide
        $command_5 = /(^|[\r\n@&])[ \t]*start[ \t]+("[^"\r\n]{0,128}"[ \t]+)?\/[a-z]/ nocase ascii wide
        $command_6 = /(^|[\r\n@&])[ \t]*exit([ \t]+\/b)?([ \t]+\d{1,10})?\s*$/ nocase ascii wide
        $command_7 = "%comspec%" nocase ascii wide
        $command_8 = /(^|[\r\n@&])[ \t]*timeout[ \t]+(\/t[ \t]+)?\d/ nocase ascii wide
        $command_9 = /(^|[\r\n@&(])[ \t]*for[ \t]+\/f[ \t"]/ nocase ascii wide

        $substring = /%[^%\r\n]{1,64}:~[ \t]*-?\d{1,4}(,[ \t]*-?\d{1,4})?%/ ascii wide
        $powershell = /(^|[\r\n@&|"(])[ \t]*p\^?o\^?w\^?e\^?r\^?s\^?h\^?e\^?l\^?l(\.exe)?["^]{0,2}[ \t]/ nocase ascii wide
        $setlocal = /(^|[\r\n@&])[ \t]*setlocal[ \t]+(en|dis)able(delayedexpansion|extensions)\b/ nocase ascii wide
        $remark = /(^|[\r\n@&])[ \t]*(rem[ \t]|set[ \t]+("|\/[ap][ \t]+)?\w+[ \t]*=)/ nocase ascii wide
        $run = /(%[\w~:,.()\-]{1,64}%){4}/ ascii wide
    condition:
        (
            (mime startswith "text" or uint16(0) == 0xfeff or $command_2 at 0) and (
                #substring > 3 or
                ($powershell and any of ($command_*)) or
                for any of ($command_*) : (# > 3) or
                $setlocal or
                (2 of ($command_*) and #remark > 4) or
                #run > 3
            )
        ) or (
            mime == "application/octet-stream" and (
                #substring > 20 or for any of ($command_*) : (# > 20) or (#run > 20 and any of ($command_*))
            )
        )
}

rule code_batch_small {
    meta:
        type = "code/batch"
        score = -1
    strings:
        $start = /(^|[\r\n@&])[ \t]*start[ \t]+\S/ nocase ascii wide
        $find = /\bfindstr[ \t]/ nocase ascii wide
        $path = /[a-z]:\\[^\r\n"]{1,200}\.(exe|bat|cmd|com)\b/ nocase ascii wide
        $task = /\b(schtasks|taskkill|tasklist)\b/ nocase ascii wide
        $remark = /(^|[\r\n@&])[ \t]*(rem[ \t]|set[ \t]+\w+[ \t]*=)/ nocase ascii wide
    condition:
        (mime startswith "text" or uint16(0) == 0xfeff) and filesize < 512 and
        ($start or $find or $path or $task or #remark > 4)
}

rule document_ps {
    meta:
        type = "document/ps"
    strings:
        $header = /^%!PS/
        $path = /\b(moveto|lineto|curveto|rmoveto|rlineto|rcurveto|closepath|newpath|arc)\b/
        $paint = /\b(stroke|fill|eofill|show|showpage|clip|image)\b/
        $state = /\b(gsave|grestore|setlinewidth|setgray|setrgbcolor|translate|scale|rotate|setfont|findfont)\b/
        $word = /\b(def|bind|dup|exch|pop|dict|begin|end|roll)\b/
    condition:
        mime startswith "text" and $header and #path > 2 and #paint > 2 and #state > 2 and #word > 2
}

rule code_markdown {
    meta:
        type = "code/markdown"
    strings:
        $bullet = /(^|[\r\n])[ \t]*[\-*+][ \t]+`[^`\r\n]{1,128}`[ \t]*[:\-][ \t]*[A-Za-z]/
        $link = /(^|[\r\n])[ \t]*\[[^\]\r\n]{1,128}\]:[ \t]*<?https?:\/\//
    condition:
        mime startswith "text" and all of them
}

rule code_sql {
    meta:
        type = "code/sql"
    strings:
        $replace = /\bCREATE[ \t\r\n]+OR[ \t\r\n]+REPLACE\b/ nocase
        $table = /(^|[\r\n;])[ \t]*(CREATE|DROP|SELECT|RETURNS|DECLARE)[ \t]+[^;\r\n]{0,80}\b(TABLE|VIEW)\b/ nocase
    condition:
        mime startswith "text" and ($replace or #table > 2)
}

rule code_go {
    meta:
        type = "code/go"
    strings:
        $import = /(^|[\r\n])import[ \t]*\([ \t]*[\r\n]/
        $function = /(^|[\r\n])func[ \t]+(\([^)\r\n]*\)[ \t]*)?\w+[ \t]*[(\[]/
    condition:
        mime startswith "text" and all of them
}

rule code_ruby {
    meta:
        type = "code/ruby"
    strings:
        $require = /(^|[\r\n])[ \t]*require(_relative)?[ \t(]*["'][\w\/.\-]+["']/
        $rescue = /(^|[\r\n])[ \t]*rescue[ \t]+([A-Z][\w:]*[, \t]*){0,6}=>[ \t]*\w/
    condition:
        mime startswith "text" and all of them
}

rule code_perl {
    meta:
        type = "code/perl"
    strings:
        $my = /\bmy[ \t]*(\([ \t]*)?[$@%]\w+[^;\r\n=]{0,100}=/
        $sub = /(^|[\r\n])[ \t]*sub[ \t]+\w+[ \t\r\n]*(\([^)\r\n]*\)[ \t\r\n]*)?\{/
    condition:
        mime startswith "text" and all of them
}

rule code_rust {
    meta:
        type = "code/rust"
    strings:
        $item = /(^|[\r\n])[ \t]*(pub(\([\w ]+\))?|priv)[ \t]+(struct|enum|impl|const|trait|mod|fn|static)[ \t]+\w/
        $method = /\bfn[ \t]+\w+(<[^>\r\n]{1,100}>)?[ \t]*\([ \t\r\n]*&('\w+[ \t]+)?(mut[ \t]+)?self\b/
        $macro = /\b(println|panic)![ \t]*[(\[{]/
    condition:
        mime startswith "text" and 2 of them
}

rule code_lisp {
    meta:
        type = "code/lisp"
    strings:
        $strong_var = /\(defvar[ \t\r\n]/
        $strong_macro = /\(defmacro[ \t\r\n]/
        $strong_when = /\(eval-when[ \t\r\n]/
        $strong_package = /\(in-package[ \t\r\n]/
        $list = /\(list[ \t\r\n]/
        $export = /\(export[ \t\r\n]/
    condition:
        mime startswith "text" and any of ($strong_*) and 2 of them
}

rule code_wsf {
    meta:
        type = "code/wsf"
        score = 10
    strings:
        $job = /<job[ \t\r\n>]/ nocase
        $script = /<script[ \t\r\n]+[^>]{0,128}language[ \t]*=/ nocase
    condition:
        mime startswith "text" and all of them
}

rule code_wsc {
    meta:
        type = "code/wsc"
        score = 10
    strings:
        $component = /<component[ \t\r\n>]/ nocase
        $script = /<script[ \t\r\n]+[^>]{0,128}language[ \t]*=/ nocase
    condition:
        mime startswith "text" and all of them
}

rule archive_udf {
    meta:
        type = "archive/udf"
        score = 1
    strings:
        $cd = "CD001"
        $bea = "BEA01"
        $nsr2 = "NSR02"
        $nsr3 = "NSR03"
        $boot = "BOOT2"
        $tea = "TEA01"
    condition:
        3 of them in (0x8000..0x10000)
}

rule code_a3x {
    meta:
        type = "code/a3x"
    strings:
        $wrapper = "#AutoIt3Wrapper_" nocase ascii wide
        $pragma = /#pragma[ \t]+compile[ \t]*\([ \t]*(Out|Icon|ExecLevel|UPX|AutoItExecuteAllowed|Console|FileDescription)\b/ nocase ascii wide
        $execute_line = "/AutoIt3ExecuteLine" nocase ascii wide
        $execute_script = "/AutoIt3ExecuteScript" nocase ascii wide
        $old = "AU3!EA05" ascii wide
        $new = "AU3!EA06" ascii wide
        $header_old = { A3 48 4B BE 98 6C 4A A9 99 4C 53 0A 86 D6 48 7D 41 55 33 21 45 41 30 35 }
        $header_new = { A3 48 4B BE 98 6C 4A A9 99 4C 53 0A 86 D6 48 7D 41 55 33 21 45 41 30 36 }
        $product = "This is a third-party compiled AutoIt script." ascii wide
        $no_execute = ">>>AUTOIT NO CMDEXECUTE<<<" ascii wide
    condition:
        uint16(0) != 0x5a4d and any of them
}

rule code_au3 {
    meta:
        type = "code/au3"
        score = 2
    strings:
        $keyword_include = /#include[ \t]*[<"][\w.\\\/]{1,100}\.au3[>"]/ nocase
        $keyword_tray = "#NoTrayIcon" nocase
        $keyword_admin = "#RequireAdmin" nocase
        $keyword_func = /(^|[\r\n])[ \t]*Func[ \t]+\w+[ \t]*\(/ nocase
        $keyword_end = /(^|[\r\n])[ \t]*EndFunc\b/ nocase
        $keyword_scope = /\b(Local|Global|Dim)[ \t]+(Const[ \t]+)?\$\w/ nocase
        $keyword_until = /(^|[\r\n])[ \t]*(WEnd|EndSelect|EndSwitch|ExitLoop|ContinueLoop)\b/ nocase
        $keyword_macro = /@(ScriptDir|ScriptFullPath|AppDataDir|TempDir|SW_HIDE|AutoItExe|OSVersion|ComputerName|CRLF)\b/ nocase

        $strong_install = /\bFileInstall[ \t]*\(/ nocase
        $strong_dll = /\bDllCall[ \t]*\(/ nocase
        $strong_struct = /\bDllStruct(Create|GetData|SetData|GetPtr)[ \t]*\(/ nocase
        $strong_gui = /\bGUI(Create|GetMsg|SetState|Delete)[ \t]*\(/ nocase
        $strong_control = /\bGUICtrl(Create|Set|Read)\w*[ \t]*\(/ nocase
        $strong_window = /\bWin(Activate|Wait|WaitActive|Exists|Close|SetState|GetTitle)[ \t]*\(/ nocase
        $strong_send = /\bControl(Send|Click|SetText|Focus)[ \t]*\(/ nocase
        $strong_ini = /\bIni(Read|Write|Delete)\w*[ \t]*\(/ nocase
        $strong_registry = /\bReg(Read|Write|Delete)[ \t]*\(/ nocase
        $strong_process = /\bProcess(Exists|Close|Wait|List)\w*[ \t]*\(/ nocase
        $strong_run = /\b(ShellExecute|RunWait|RunAs|ShellExecuteWait)[ \t]*\(/ nocase
        $strong_inet = /\bInet(Get|Read|GetSize)[ \t]*\(/ nocase
        $strong_binary = /\b(BinaryToString|StringToBinary|BinaryMid|BinaryLen)[ \t]*\(/ nocase
        $strong_string = /\bString(InStr|Split|Mid|Left|Right|Replace|RegExp|TrimRight|StripWS|Len)[ \t]*\(/ nocase
        $strong_object = /\bObj(Create|Get|Event)[ \t]*\(/ nocase
        $strong_box = /\bMsgBox[ \t]*\(/ nocase
        $strong_file = /\bFile(Open|Read|Write|Close|Exists|Delete|Copy)(Line)?[ \t]*\(/ nocase
        $strong_mouse = /\b(MouseClick|MouseMove|PixelSearch|PixelGetColor|HotKeySet|TrayTip|ToolTip|SplashTextOn)[ \t]*\(/ nocase
        $strong_option = /\b(Opt|AutoItSetOption)[ \t]*\([ \t]*["']/ nocase

        $weak_sleep = /\bSleep[ \t]*\(/ nocase
        $weak_ubound = /\bUBound[ \t]*\(/ nocase
        $weak_random = /\bRandom[ \t]*\(/ nocase
        $weak_execute = /\bExecute[ \t]*\(/ nocase
        $weak_then = /\bIf[ \t][^\r\n]{1,200}[ \t]Then\b/ nocase
        $weak_concat = /\$\w+[ \t]*&=?[ \t]*["'$@]/
    condition:
        mime startswith "text" and any of ($keyword_*) and (
            5 of ($strong_*) or
            (2 of ($strong_*) and 10 of them)
        )
}

rule text_rdp {
    meta:
        type = "text/rdp"
        score = -2
    strings:
        $address = /(^|[\r\n])full address:s:/ ascii wide
        $key_mode = /(^|[\r\n])screen mode id:i:/ ascii wide
        $key_monitor = /(^|[\r\n])use multimon:i:/ ascii wide
        $key_width = /(^|[\r\n])desktop(width|height):i:/ ascii wide
        $key_depth = /(^|[\r\n])session bpp:i:/ ascii wide
        $key_compression = /(^|[\r\n])compression:i:/ ascii wide
        $key_audio = /(^|[\r\n])audio(mode|capturemode):i:/ ascii wide
        $key_redirect = /(^|[\r\n])redirect(clipboard|printers|drives|smartcards|comports):i:/ ascii wide
        $key_user = /(^|[\r\n])username:s:/ ascii wide
        $key_level = /(^|[\r\n])authentication level:i:/ ascii wide
        $key_gateway = /(^|[\r\n])gateway(hostname|usagemethod):/ ascii wide
        $key_shell = /(^|[\r\n])alternate shell:s:/ ascii wide
    condition:
        mime startswith "text" and $address and 2 of ($key_*)
}
