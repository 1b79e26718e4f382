#include "tests/unit/kit.h"

#include "aws/xml.h"

static XmlNode *parse(Arena *arena, const char *text)
{
    Err err = ERR_INIT;
    XmlNode *root;

    if (!xml_parse(span_str(text), arena, &root, &err))
        fail_msg("%s: %s", text, err.text);
    return root;
}

static void test_tree(void **state)
{
    Arena arena;
    const XmlNode *root;
    AwsNames names;

    (void)state;
    arena_init(&arena, 1024);
    root = parse(&arena, "<?xml version=\"1.0\"?><R xmlns=\"http://x/\"><A> a &amp; b </A><B/>"
                         "<L><member>one</member><member>two</member></L><x:P xmlns:x=\"y\">p</x:P>"
                         "<D><E><F>-12</F></E></D><T>true</T><N>12x</N><![CDATA[lost]]></R>");
    assert_string_equal(root->name, "R");
    assert_string_equal(xml_text(root, "A"), " a & b ");
    assert_string_equal(xml_text(root, "B"), "");
    assert_null(xml_text(root, "C"));
    assert_null(xml_text(NULL, "C"));
    assert_string_equal(xml_text(root, "P"), "p");
    assert_int_equal(xml_num(root, "D/E/F").value, -12);
    assert_false(xml_num(root, "N").set);
    assert_false(xml_num(root, "D/E/G").set);
    assert_int_equal(xml_bool(root, "T"), AWS_TRUE);
    assert_int_equal(xml_bool(root, "A"), AWS_FALSE);
    assert_int_equal(xml_bool(root, "nothing"), AWS_UNSET);
    names = xml_names(root, "L", "member", &arena);
    assert_int_equal(names.count, 2);
    assert_string_equal(names.at[1], "two");
    assert_int_equal(xml_count(root, NULL), 7);
    assert_int_equal(xml_names(root, "missing", "member", &arena).count, 0);
    arena_fini(&arena);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"", "an answer isn't XML: no element found in line 1, column 0"},
        {"not xml", "an answer isn't XML: syntax error in line 1, column 0"},
        {"<a><b></a>", "an answer isn't XML: mismatched tag in line 1, column 8"},
        {"<a>", "an answer isn't XML: no element found in line 1, column 3"},
        {"<a>\x01</a>", "an answer isn't XML: not well-formed (invalid token) in line 1, column 3"},
        {"<!DOCTYPE a><a/>", "an XML answer is refused: it has a document type declaration"},
        {"<!DOCTYPE a [<!ENTITY b \"b\">]><a>&b;</a>",
         "an XML answer is refused: it has a document type declaration"},
        {"<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
         "an XML answer is refused: it has a document type declaration"},
        {"<a>&b;</a>", "an answer isn't XML: undefined entity in line 1, column 3"},
    };
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Err err = ERR_INIT;
        XmlNode *root;

        assert_false(xml_parse(span_str(cases[i].text), &arena, &root, &err));
        assert_null(root);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        assert_string_equal(err.text, cases[i].error);
    }
    arena_fini(&arena);
}

static void nest(Buf *out, size_t depth)
{
    for (size_t i = 0; i < depth; i++)
        buf_puts(out, "<a>");
    for (size_t i = 0; i < depth; i++)
        buf_puts(out, "</a>");
}

static void test_limits(void **state)
{
    Err err = ERR_INIT;
    XmlNode *root;
    Arena arena;
    Buf text;

    (void)state;
    arena_init(&arena, 1024);
    buf_init(&text, MIB(16));
    nest(&text, XML_MOST_DEPTH);
    assert_true(xml_parse(buf_span(&text), &arena, &root, &err));
    buf_clear(&text);
    nest(&text, XML_MOST_DEPTH + 1);
    assert_false(xml_parse(buf_span(&text), &arena, &root, &err));
    assert_string_equal(err.text, "an XML answer is refused: elements are nested too deeply");
    buf_clear(&text);
    buf_puts(&text, "<r>");
    for (size_t i = 0; i < XML_MOST_NODES; i++)
        buf_puts(&text, "<a/>");
    buf_puts(&text, "</r>");
    assert_false(xml_parse(buf_span(&text), &arena, &root, &err));
    assert_string_equal(err.text, "an XML answer is refused: there are too many elements");
    buf_fini(&text);
    arena_fini(&arena);
}

static void test_truncations(void **state)
{
    static const char text[] = "<R><A>a &#65; b</A><L><m>1</m></L></R>";
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t len = 0; len < sizeof(text) - 1; len++) {
        uint8_t *exact = kit_exact(span_of(text, len));
        Err err = ERR_INIT;
        XmlNode *root;

        assert_false(xml_parse(span_of(exact, len), &arena, &root, &err));
        free(exact);
    }
    arena_fini(&arena);
}

static void test_scrub(void **state)
{
    static const struct {
        const char *text;
        const char *scrubbed;
    } cases[] = {
        {"plain\ttext\r\n", "plain\ttext\r\n"},
        {"a\x01z\x1b[0m", "a?z?[0m"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xe9t\xe9", "?t?"},
        {"\xc0\x80\xed\xa0\x80\xef\xbf\xbe", "????????"},
        {"\xf4\x90\x80\x80", "????"},
        {"&#27;[1m", "?????[1m"},
        {"&#x1B;", "??????"},
        {"&#10;&#x9;&amp;&#233;", "&#10;&#x9;&amp;&#233;"},
        {"&#x110000;", "??????????"},
        {"&#;&#x;&#12345678901234567890;", "&#;&#x;&#12345678901234567890;"},
        {"\xe2\x82", "??"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].text);
        uint8_t *exact = kit_exact(span_str(cases[i].text));

        xml_scrub(exact, len);
        assert_memory_equal(exact, cases[i].scrubbed, len);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_scrub),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
