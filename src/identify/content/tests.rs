use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::LazyLock;

use super::super::types::TypeTable;
use super::*;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::compile().unwrap());

const TEXT: &str = "text/plain";
const BINARY: &str = "application/octet-stream";

fn facts(mime: &str) -> Facts {
    Facts { mime: mime.into(), magic: String::new(), file_type: String::new() }
}

/// A rule's name, a mime, content, and whether the rule matches it.
type Sample = (&'static str, &'static str, String, bool);

fn yes(rule: &'static str, content: impl Into<String>) -> Sample {
    (rule, TEXT, content.into(), true)
}

fn no(rule: &'static str, content: impl Into<String>) -> Sample {
    (rule, TEXT, content.into(), false)
}

fn check(samples: Vec<Sample>) {
    let mut wrong = Vec::new();
    for (rule, mime, content, wanted) in samples {
        let found = RULES.names(&facts(mime), content.as_bytes());
        if found.iter().any(|name| name == rule) != wanted {
            wrong
                .push(format!("{rule} should {} {mime} {content:?}: {found:?}", if wanted { "match" } else { "pass" }));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn there_are_48_typed_rules_of_40_types_in_the_order_of_the_contract() {
    let rules: Vec<_> = RULES.all();
    let typed: Vec<_> =
        rules.iter().filter_map(|(_, file_type, score)| Some((file_type.as_deref()?, *score))).collect();
    assert_eq!((rules.len(), typed.len()), (50, 48));
    let types: BTreeMap<_, _> = typed.iter().copied().collect();
    assert_eq!(types.len(), 40);
    let scored = [
        ("code/javascript", 1),
        ("code/jscript", 5),
        ("code/xfa", 5),
        ("code/vbs", 2),
        ("code/html", 10),
        ("code/html", 10),
        ("code/html", 10),
        ("code/hta", 12),
        ("code/html/component", 10),
        ("document/email", 15),
        ("log/vipermonkey", 20),
        ("text/json", 2),
        ("code/csharp", 1),
        ("code/jsp", 3),
        ("code/ps1", 1),
        ("code/ps1", 5),
        ("code/ps1", -1),
        ("code/ps1", 1),
        ("code/c", 1),
        ("code/glsl", 2),
        ("code/python", 3),
        ("code/python", -2),
        ("code/java", 2),
        ("code/protobuf", 3),
        ("code/batch", 2),
        ("code/batch", -1),
        ("code/wsf", 10),
        ("code/wsc", 10),
        ("archive/udf", 1),
        ("code/au3", 2),
        ("text/rdp", -2),
    ];
    let found: Vec<_> = typed.iter().filter_map(|(name, score)| Some((*name, (*score)?))).collect();
    assert_eq!(found, scored);
    let unscored: Vec<_> = typed.iter().filter(|(_, score)| score.is_none()).map(|(name, _)| *name).collect();
    let wanted = "code/xml code/xml code/php code/h code/idl code/clickonce code/css code/ducky document/ps code/markdown \
                  code/sql code/go code/ruby code/perl code/rust code/lisp code/a3x";
    assert_eq!(unscored.join(" "), wanted.split_whitespace().collect::<Vec<_>>().join(" "));
    // Two without a type, which serve others and never win.
    let untyped: Vec<_> =
        rules.iter().filter(|(_, file_type, _)| file_type.is_none()).map(|(name, _, _)| name).collect();
    assert_eq!(untyped, ["lead", "trail"]);
    for name in types.keys() {
        assert!(TypeTable::load().get(name).is_some(), "{name}");
    }
}

#[test]
fn scripts_of_browsers_and_hosts() {
    const LOADER: &str = "var a = 1;\nsetTimeout(go, 10);\n";
    check(vec![
        yes("code_javascript", LOADER),
        yes("code_javascript", "window['x'].y = unescape('%41');\n"),
        yes("code_javascript", "alert(1);\nx = Math.floor(y) + z.length;\n"),
        yes("code_javascript", "function a(b) { return b; }\nuser_pref(\"a\", 1);\n"),
        yes("code_javascript", "function a(b) { return this.x + b.substr(1); }\n"),
        yes("code_javascript", "function a() { go(); }\na();\n"),
        no("code_javascript", "<b>\nvar a = 1;\nsetTimeout(go, 10);\n"),
        no("code_javascript", "<!-- x -->\nvar a = 1;\nsetTimeout(go, 10);\n"),
        no("code_javascript", "let us = say\n"),
        no("code_javascript", "The function of the document is to alert the reader.\n"),
        ("code_javascript", "application/javascript", LOADER.into(), true),
        ("code_javascript", "application/x-other", LOADER.into(), false),
        ("code_javascript", BINARY, LOADER.into(), false),
        ("code_javascript", BINARY, format!("{LOADER}x.charAt(0); alert(x);\u{1}"), true),
        yes("code_jscript", "var s = new ActiveXObject('A');\ntry { s.Run(); } catch (e) {}\n"),
        yes("code_jscript", format!("/*@cc_on @*/ {LOADER}")),
        yes("code_jscript", format!("{LOADER}x = WScript.CreateObject('A');\n")),
        no("code_jscript", LOADER),
        no("code_jscript", "new ActiveXObject\n"),
        yes("code_vbs", "On Error Resume Next\r\nDim a\r\nSet a = b\r\n"),
        yes("code_vbs", "Sub Main(a, b)\r\n  MsgBox \"x\"\r\nEnd Sub\r\n"),
        yes("code_vbs", "Dim a\r\nDim b\r\nExecuteGlobal a\r\n"),
        yes("code_vbs", "x = \"Scripting.FileSystemObject\"\r\nf.CreateTextFile\r\nc = a & Chr(10)\r\n"),
        no("code_vbs", "Dim a\r\nDim b\r\n"),
        no("code_vbs", "On Error Resume Next\r\n"),
        no("code_vbs", "$a = @'\nOn Error Resume Next\nMsgBox 1\n'@\n"),
        no("code_vbs", "var a = x.charAt(1);\nMsgBox; Err.Raise; setTimeout(x)\n"),
        no("code_vbs", "a = text.replace('x', 'y')\nb = numpy.array(a)\n"),
    ]);
    let names = RULES.names(&facts(TEXT), &wide(LOADER));
    assert!(names.contains(&"code_javascript".to_owned()), "{names:?}");
    let names = RULES.names(&facts(TEXT), &wide("On Error Resume Next\r\nMsgBox 1\r\n"));
    assert!(names.contains(&"code_vbs".to_owned()), "{names:?}");
}

#[test]
fn markup() {
    let pad = " ".repeat(300);
    check(vec![
        yes("code_xfa", "<template xmlns=\"http://www.xfa.org/schema/xfa-template/2.8/\">xfa.host.name</template>"),
        no("code_xfa", "<template xmlns=\"http://www.xfa.org/schema/xfa-template/2.8/\"></template>"),
        no("code_xfa", format!("{pad}http://www.xfa.org/schema/xfa-template/ xfa.host.name")),
        yes("code_xml", "<?xml version=\"1.0\"?><a/>"),
        yes("code_xml", "text <xml xmlns:v=\"urn:x\"><v:a/></xml> text"),
        no("code_xml", "text <?xml version=\"1.0\"?>"),
        no("code_xml", "<xml>a</xml>"),
        yes("code_xml_tags", "<a>\n<b>c</b>\n</a>\n"),
        yes("code_xml_tags", "<a:b c = \"d\">x</a:b>"),
        no("code_xml_tags", "<a>\n<b>c</b>\n</a> and on\n"),
        no("code_xml_tags", format!("{pad}<a>c</a>\n")),
        no("code_xml_tags", "a < b and c > d </x"),
        no("code_xml_tags", "</a>"),
        yes("code_html_document", "<!doctype HTML>\n"),
        yes("code_html_document", "x <html lang=en>"),
        yes("code_html_document", format!("{pad}</html>\n")),
        no("code_html_document", format!("{pad}<html>")),
        no("code_html_document", format!("</html>{pad}")),
        yes("code_html_tags", "<x y=1>\n  <div>\n</x>"),
        yes("code_html_tags", "<!-- a -->\n<table>\n<!-- b -->"),
        no("code_html_tags", "<x>\n  <div>\n"),
        no("code_html_tags", "<a>\n<b>c</b>\n</a>\n"),
        yes("code_html_void", "<x>\n<img src=y>\n"),
        yes("code_html_void", "<x>\n  <body>\n"),
        no("code_html_void", "<x> <img src=y>\n"),
        no("code_html_void", "\n<imgs>\n"),
        yes("code_hta", "\n<HTA:Application ID=o>"),
        yes("code_hta", "<head><hta:application/>"),
        no("code_hta", "say hta:application"),
        yes(
            "code_html_component",
            "<public:component>\n<script language=\"VBScript\">\n</script>\n</public:component>",
        ),
        no("code_html_component", "<public:component>\n<script language=\"perl\">\n</script>\n</public:component>"),
        no("code_html_component", "<public:component>\n<script language=\"jscript\">"),
        yes("code_clickonce", "<assembly manifestVersion=\"1.0\" xmlns=\"urn:a\">\n</assembly>"),
        no("code_clickonce", "<assembly xmlns=\"urn:a\">\n"),
        no("code_clickonce", "x <assembly xmlns=\"urn:a\">\n</assembly>"),
        yes("code_wsf", "<job id=1><script language=\"JScript\">\n</script></job>"),
        no("code_wsf", "<job id=1><script>\n</script></job>"),
        yes("code_wsc", "<component><script language='VBScript'>\n</script></component>"),
        no("code_wsc", "<components><script language='VBScript'>\n</script>"),
    ]);
}

#[test]
fn documents_and_data() {
    let from = "From: a@example.com\n";
    let ruler = "=".repeat(79);
    let thin = "-".repeat(79);
    let log = format!(
        "{ruler}\nFILE: a.doc\n{thin}\nVBA MACRO b.bas\nin file: a.doc\nVBA CODE (with long lines collapsed):\n{thin}\nPARSING VBA CODE:\n"
    );
    let draw = "newpath 1 1 moveto 2 2 lineto closepath\ngsave 1 setlinewidth stroke grestore\nshow fill\n/a 1 def /b 2 def\ndup exch\n";
    check(vec![
        yes("document_email", format!("{from}MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"x\"\n")),
        yes("document_email", format!("{from}To: b\nSubject: c\nDate: d\nContent-Type: text/html\n\n<html>\n")),
        no("document_email", format!("{from}To: b\nSubject: c\nDate: d\n\nhello\n")),
        no("document_email", format!("<html>\n{from}MIME-Version: 1.0\nContent-Type: text/html\n\nx\n")),
        no("document_email", "To: b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n"),
        yes("log_vipermonkey", log.clone()),
        no("log_vipermonkey", log.replace("in file: ", "of ")),
        yes("text_json", "{ \"a\" : 1 }"),
        yes("text_json", "{\"a\":{}}"),
        no("text_json", "{a: 1, \"b\": 2}"),
        no("text_json", "{ \"a\" : 1 }\n"),
        no("text_json", "{ \"a\" }"),
        yes("document_ps", format!("%!PS-Adobe-3.0\n{}", draw.repeat(3))),
        no("document_ps", "%!PS-Adobe-3.0\nnewpath 1 1 moveto stroke\n"),
        no("document_ps", draw.repeat(3)),
        yes("code_markdown", "- `--all`: everything\n\n[x]: https://example.com\n"),
        no("code_markdown", "- `--all`: everything\n"),
        no("code_markdown", "# Title\n\n[x](https://example.com)\n"),
        yes("code_css", "a { color: red; }\n.b { margin : 0 }\n#c\n{ font-size:1em }\n"),
        no("code_css", "a { color: red; }\n.b { margin: 0 }\n"),
        ("code_css", "text/html", "a { color: red; }\n.b { margin: 0 }\nc { top: 1px }\n".into(), false),
        no("code_css", "f({ color: 1 }); f({ width: 1 }); f({ top: 1 });\n"),
        yes("text_rdp", "screen mode id:i:2\r\nuse multimon:i:0\r\nfull address:s:10.0.0.1\r\n"),
        no("text_rdp", "screen mode id:i:2\r\nuse multimon:i:0\r\n"),
        no("text_rdp", "use multimon:i:0\r\nfull address:s:10.0.0.1\r\n"),
        yes("code_sql", "create or\nreplace function x()\n"),
        yes("code_sql", "CREATE TABLE a (x int);\nDROP TABLE b;\ncreate temporary view c as\n"),
        no("code_sql", "CREATE TABLE a (x int);\nDROP TABLE b;\n"),
    ]);
}

#[test]
fn programs_of_the_c_family() {
    check(vec![
        yes("code_c", "#include <stdio.h>\nconst char *x;\n"),
        yes("code_c", "#define A 1\nstruct b {\n};\n"),
        yes("code_c", "class A {\npublic:\n  ULONG x;\n};\n"),
        no("code_c", "#include <stdio.h>\nint main(void) { return 0; }\n"),
        ("code_c", BINARY, "#include <stdio.h>\nconst char *x;\n".into(), false),
        yes("code_h", "#ifndef A\n#define A 1\n#define B 2\n#define C(x) (x)\n#endif\n"),
        no("code_h", "#ifndef A\n#define A 1\n#define B 2\n#endif\n"),
        no("code_h", "#include <x.h>\n#define A 1\n#define B 2\n#define C 3\n#endif\n"),
        yes("code_csharp", "using System;\nnamespace A.B\n{\n"),
        yes("code_csharp", "[DllImport(\"x\")]\npublic static class A {\n"),
        yes("code_csharp", "public override string ToString() { fixed (int* a = b) {} }\n"),
        no("code_csharp", "using namespace std;\nvoid f() override;\n"),
        no("code_csharp", "using System;\n"),
        yes("code_idl", "[ helpstring(\"x\") ]\nimport \"unknwn.idl\";\n"),
        yes("code_idl", "importlib(\"stdole32.tlb\");\ntypedef [uuid(x)] int y;\n"),
        no("code_idl", "import \"unknwn.idl\";\n"),
        yes("code_glsl", "#version 330\nuniform vec3 a;\n"),
        yes("code_glsl", "precision highp float;\nuniform sampler2D a;\n"),
        no("code_glsl", "#version 330\n"),
        yes("code_java", "package a.b;\npublic class C {\n"),
        yes("code_java", "import java.io.File;\nSystem.out.println(1);\n"),
        yes("code_java", "  private int x = 1;\n  void f() throws E {\n  List<String> a;\n"),
        no("code_java", "public class C {\n"),
        no("code_java", "using System;\npublic class C {\n  private int x;\n"),
        yes("code_protobuf", "syntax = \"proto3\";\noption java_package = \"a\";\n"),
        no("code_protobuf", "syntax = \"proto3\";\nmessage A {}\n"),
        yes("code_go", "package a\n\nimport (\n\t\"fmt\"\n)\n\nfunc main() {\n"),
        no("code_go", "package a\n\nfunc main() {\n"),
        yes("code_rust", "pub struct A;\nfn f(&self) {}\n"),
        yes("code_rust", "pub(crate) enum A {}\npanic!(\"x\")\n"),
        no("code_rust", "pub struct A;\n"),
    ]);
}

#[test]
fn programs_of_other_families() {
    let page = "<%@ page import=\"java.util.*\" %>\n<% String a = request.getParameter(\"b\"); %>\n";
    check(vec![
        yes("code_php", "<?php\n$this->a();\n"),
        yes("code_php", "#!x\n<?\nfunction a($b) {}\n"),
        yes("code_php", "<?php require_once 'a.php';\n"),
        no("code_php", "<?php\necho 1;\n"),
        no("code_php", "<?xml version=\"1.0\"?>\neval(1)\n"),
        no("code_php", format!("{}\n<?php eval(1);\n", " ".repeat(300))),
        yes("code_jsp", "<jsp:include page=\"a\"></jsp:include>\n"),
        yes("code_jsp", "<%@ page x %><%@ taglib y %>"),
        yes("code_jsp", page),
        no("code_jsp", "<% a %>\n<% b %>\n"),
        no("code_jsp", "<%@ page x %>"),
        yes("code_python", "from a import b\n\ndef f(x):\n    pass\n"),
        yes("code_python", "if __name__ == '__main__':\n"),
        yes("code_python", format!("{}os.system('x')\nsubprocess.run(['y'])\n", "#\n".repeat(600))),
        yes("code_python", format!("{}exec(zlib.decompress(base64.b64decode('x')))\n", "#\n".repeat(600))),
        yes("code_python", "exec(__import__('\\x7a\\x6c\\x69\\x62').x)\n"),
        yes("code_python", format!("{}marshal.loads(a)\n", "#\n".repeat(600))),
        no("code_python", format!("{}def f(x):\n    pass\n", "#\n".repeat(600))),
        no("code_python", "import os\nprint(1)\n"),
        yes("code_python_system", "__import__('os').system('x')"),
        yes("code_python_system", "a __import__('os').system('x') __import__(\"os\").system(y)"),
        no("code_python_system", "a __import__('os').system('x')"),
        yes("code_ruby", "require 'a'\nbegin\nrescue StandardError => e\n"),
        no("code_ruby", "require 'a'\nrescue\n"),
        yes("code_perl", "my $a = 1;\nsub f {\n"),
        no("code_perl", "my $a = 1;\n"),
        yes("code_lisp", "(in-package :a)\n(list 1 2)\n"),
        yes("code_lisp", "(defvar a)\n(defmacro b)\n"),
        no("code_lisp", "(defvar a)\n"),
        no("code_lisp", "(list 1)\n(export 2)\n"),
    ]);
}

#[test]
fn powershell() {
    const LINES: &str = "Get-ChildItem C:\\\nWrite-Host done\n";
    check(vec![
        yes("code_ps1", LINES),
        yes("code_ps1", "x\n[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('x'))\n"),
        yes("code_ps1", "iwr x | iex\n$a = 1\nif ($b -eq 2) {}\n"),
        no("code_ps1", "Get-ChildItem C:\\\n"),
        no("code_ps1", "$a = 1\n"),
        ("code_ps1", BINARY, LINES.into(), false),
        ("code_ps1", BINARY, format!("{LINES}New-Object a\u{2}"), true),
        yes("code_ps1_in_ps1", LINES),
        no("code_ps1_in_ps1", format!("# x\n{LINES}")),
        no("code_ps1_in_ps1", format!("p^owershell -c {LINES}")),
        no("code_ps1_in_ps1", "Get-ChildItem C:\\\n"),
        yes("code_ps1_in_batch", format!("@echo off\n@p^owe%r^shell x\n{LINES}")),
        no("code_ps1_in_batch", LINES),
        yes("code_ps1_command", " PowerShell -nop\n"),
        no("code_ps1_command", "a powershell\n"),
        no("code_ps1_command", format!("powershell {}", " ".repeat(12_288))),
    ]);
    let names = RULES.names(&facts(TEXT), &wide(LINES));
    assert!(names.contains(&"code_ps1_in_ps1".to_owned()), "{names:?}");
}

#[test]
fn batch_and_keystrokes() {
    let keys = "DELAY 500\nGUI r\nSTRING cmd\nENTER\n";
    check(vec![
        yes("code_batch", "echo a\r\necho b\r\n@echo c\r\nx & echo d\r\n"),
        yes("code_batch", "net user a b /add\r\npowershell -c x\r\n"),
        yes("code_batch", "setlocal EnableDelayedExpansion\r\n"),
        yes("code_batch", "%a:~1,2%%b:~3,1%\r\n%c:~-1%\r\n%d:~0%\r\n"),
        yes("code_batch", "reg add x\r\nstart /b y\r\nrem\r\nset a=1\r\nset b=1\r\nset c=1\r\nset d=1\r\nset e=1\r\n"),
        yes("code_batch", "%a%%b%%c%%d%\r\n".repeat(4)),
        no("code_batch", "echo a\r\necho b\r\necho c\r\n"),
        no("code_batch", "goto out;\ngoto out;\ngoto out;\ngoto out;\n"),
        no("code_batch", "the net use of it\n"),
        ("code_batch", BINARY, "echo a\r\n".repeat(20), false),
        ("code_batch", BINARY, "echo a\r\n".repeat(21), true),
        ("code_batch", BINARY, format!("netsh x\r\n{}", "taskkill /im y\r\n".repeat(4)), true),
        ("code_batch", BINARY, format!("\u{1}netsh x\r\n{}", "taskkill /im y\r\n".repeat(4)), false),
        yes("code_batch_small", "start x.exe\r\n"),
        yes("code_batch_small", "C:\\a\\b.exe\r\n"),
        yes("code_batch_small", "set a=1\r\n".repeat(5)),
        no("code_batch_small", "set a=1\r\n".repeat(4)),
        no("code_batch_small", format!("start x.exe\r\n{}", " ".repeat(512))),
        yes("code_ducky", keys.repeat(3)),
        no("code_ducky", keys.repeat(2)),
        no("code_ducky", "REM x\n".repeat(20)),
    ]);
    let marked = [&b"\xff\xfe"[..], &wide(&"echo a\r\n".repeat(5))].concat();
    let names = RULES.names(&facts(BINARY), &marked);
    assert!(names.contains(&"code_batch".to_owned()), "{names:?}");
}

#[test]
fn autoit() {
    let strong = "FileInstall(a)\nDllCall(b)\nGUICreate(c)\nWinActivate(d)\nRegRead(e)\n";
    check(vec![
        yes("code_a3x", "x AU3!EA06"),
        yes("code_a3x", "#AutoIt3Wrapper_UseX64=y\n"),
        ("code_a3x", BINARY, ">>>AUTOIT NO CMDEXECUTE<<<".into(), true),
        no("code_a3x", "MZ AU3!EA06"),
        no("code_a3x", "AU3!EA04"),
        yes("code_au3", format!("#NoTrayIcon\n{strong}")),
        yes(
            "code_au3",
            "#RequireAdmin\nFunc a()\nEndFunc\nLocal $x\nWEnd\n@ScriptDir\nMsgBox(1)\nRegRead(2)\nSleep(1)\nRandom(2)\nUBound(3)\n",
        ),
        no("code_au3", strong),
        no("code_au3", "#NoTrayIcon\nFileInstall(a)\nDllCall(b)\n"),
    ]);
}

#[test]
fn a_volume_is_known_by_three_different_marks_where_they_belong() {
    let volume = |marks: &[(usize, &[u8])]| {
        let mut bytes = vec![0; 0x11000];
        for (at, mark) in marks {
            bytes[*at..*at + mark.len()].copy_from_slice(mark);
        }
        RULES.scan(&facts(BINARY), &bytes).unwrap()
    };
    assert_eq!(volume(&[(0x8001, b"BEA01"), (0x8801, b"NSR02"), (0x9001, b"TEA01")]).as_deref(), Some("archive/udf"));
    assert_eq!(volume(&[(0x8001, b"CD001"), (0x8801, b"CD001"), (0x9001, b"CD001")]), None);
    assert_eq!(volume(&[(0x7001, b"BEA01"), (0x8801, b"NSR02"), (0x9001, b"TEA01")]), None);
}

#[test]
fn scores_decide_between_rules_that_match() {
    let won = |content: &str| RULES.scan(&facts(TEXT), content.as_bytes()).unwrap();
    // javascript 1 and java 2; javascript 1 and csharp 1; html 10 after xml 1; ps1 1 and 5; negative alone.
    let both = "package a.b;\npublic class C {\nx.charAt(1); y.toString();\n";
    assert_eq!(won(both).as_deref(), Some("code/java"));
    let both = "using A;\nnamespace B\n{\nx.charAt(1); y.toString();\n";
    assert_eq!(won(both).as_deref(), Some("code/javascript"));
    assert_eq!(won("<html>\n</html>").as_deref(), Some("code/html"));
    assert_eq!(won("start x.exe\r\n"), None);
    assert_eq!(won("").as_deref(), None);
}

#[test]
fn variables_may_hold_anything() {
    let odd = Facts { mime: "text/\0x".into(), magic: "\u{e9}\0".repeat(1000), file_type: "\0".into() };
    assert_eq!(RULES.scan(&odd, b"pub struct A;\nfn f(&self) {}\n").unwrap().as_deref(), Some("code/rust"));
}

#[test]
fn content_above_the_limit_is_skipped_and_not_read() {
    let scanner = InProcess::load(10).unwrap();
    let mut content = Cursor::new(b"12345678901");
    assert_eq!(scanner.scan(&facts(TEXT), 11, &mut content).unwrap(), Scan::Skipped);
    assert_eq!(content.position(), 0);
    assert_eq!(scanner.scan(&facts(TEXT), 10, &mut content).unwrap(), Scan::Nothing);
}

#[test]
fn million_matches_are_no_failure() {
    let content = "<a>\n".repeat(1_100_000);
    assert_eq!(RULES.scan(&facts(TEXT), content.as_bytes()).unwrap(), None);
}

/// What libyara computes with the digests of `crypto/digest.c`.
#[test]
fn the_hash_and_pe_modules_work() {
    let rule = |condition: &str| {
        let source = format!("import \"hash\" import \"pe\" rule r {{ condition: {condition} }}");
        yara::Compiler::new().unwrap().add_rules_str(&source).unwrap().compile_rules().unwrap()
    };
    let digests = [
        ("md5", "d41d8cd98f00b204e9800998ecf8427e", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            "sha256",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
    ];
    for (name, empty, abc) in digests {
        let rules = rule(&format!("hash.{name}(0, filesize) == \"{abc}\" and hash.{name}(\"\") == \"{empty}\""));
        assert_eq!(rules.scan_mem(b"abc", 10).unwrap().len(), 1, "{name}");
        assert_eq!(rules.scan_mem(b"abd", 10).unwrap().len(), 0, "{name}");
        // The longest message of one block, the shortest of two, and several updates' worth.
        for length in [55, 56, 63, 64, 119, 120, 100_000] {
            let bytes = vec![b'a'; length];
            let own = digest_of(name, &bytes);
            let rules = rule(&format!("hash.{name}(0, filesize) == \"{own}\""));
            assert_eq!(rules.scan_mem(&bytes, 10).unwrap().len(), 1, "{name} {length}");
        }
    }
    let hash = digest_of("md5", b"kernel32.exitprocess");
    assert_eq!(rule(&format!("pe.imphash() == \"{hash}\"")).scan_mem(&importing(), 10).unwrap().len(), 1);
}

fn digest_of(name: &str, bytes: &[u8]) -> String {
    let mut digester = crate::identify::Digester::new(crate::identify::Mode::Full);
    digester.update(bytes::Bytes::copy_from_slice(bytes));
    let digests = digester.finish().unwrap();
    match name {
        "md5" => digests.md5,
        "sha1" => digests.sha1,
        _ => digests.sha256,
    }
}

/// A PE file of one section that imports `ExitProcess` from `KERNEL32.dll`.
fn importing() -> Vec<u8> {
    let mut pe = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| pe[at..at + bytes.len()].copy_from_slice(bytes);
    let word = u32::to_le_bytes;
    put(0, b"MZ");
    put(0x3c, &word(0x80));
    put(0x80, b"PE\0\0\x4c\x01\x01\0");
    put(0x94, &[0xe0, 0, 0x02, 0x01]);
    put(0x98, &[0x0b, 0x01]);
    // Image base, alignments, sizes, number of directories, and the directory of imports.
    for (at, value) in [
        (0xb4, 0x40_0000),
        (0xb8, 0x1000),
        (0xbc, 0x200),
        (0xd0, 0x2000),
        (0xd4, 0x200),
        (0xf4, 16),
        (0x100, 0x1000),
        (0x104, 40),
    ] {
        put(at, &word(value));
    }
    put(0x178, b".idata\0\0");
    for (at, value) in [(0x180, 0x1000), (0x184, 0x1000), (0x188, 0x200), (0x18c, 0x200), (0x19c, 0xc000_0040)] {
        put(at, &word(value));
    }
    // One descriptor: names at 0x1040, library at 0x1060, addresses at 0x1050; the name itself at 0x1070.
    for (at, value) in [(0x200, 0x1040), (0x20c, 0x1060), (0x210, 0x1050), (0x240, 0x1070), (0x250, 0x1070)] {
        put(at, &word(value));
    }
    put(0x260, b"KERNEL32.dll");
    put(0x272, b"ExitProcess");
    pe
}
