/* What real PostgreSQL servers sent (captures/make_pgoutput.py) decodes to what their workloads
 * did. */
#include "decoders/pgoutput/pgoutput.h"

#include "engine/base/reader.h"
#include "tests/unit/kit.h"
#include "tests/unit/recorder.h"

#define CAPTURES "tests/unit/captures/"

typedef struct Capture {
    uint8_t bytes[1 << 20];
    size_t len;
} Capture;

static Capture *capture_read(const char *name)
{
    Capture *capture = malloc(sizeof(*capture));
    char path[256];
    FILE *file;

    assert_non_null(capture);
    snprintf(path, sizeof(path), CAPTURES "pgoutput-%s.bin", name);
    file = fopen(path, "rb");
    if (!file)
        fail_msg("%s can't be opened: run from the project's top folder", path);
    capture->len = fread(capture->bytes, 1, sizeof(capture->bytes), file);
    assert_true(capture->len > 0 && capture->len < sizeof(capture->bytes));
    fclose(file);
    return capture;
}

typedef struct Run {
    Decoder *decoder;
    Arena arena;
    Recorder rec;
} Run;

static void run_init(Run *run, unsigned protocol)
{
    *run = (Run){.decoder = pgoutput_new(protocol)};
    arena_init(&run->arena, 4096);
    recorder_init(&run->rec);
    run->rec.brief = true;
}

static void run_fini(Run *run)
{
    decoder_free(run->decoder);
    arena_fini(&run->arena);
    recorder_fini(&run->rec);
}

static bool run_message(Run *run, Span message, Err *err)
{
    uint8_t *block = kit_exact(message);
    Sink sink = recorder_sink(&run->rec);
    bool ok = decoder_decode(run->decoder, span_of(block, message.len), &run->arena, &sink, err);

    free(block);
    arena_reset(&run->arena);
    return ok;
}

typedef void EachFn(Run *run, Span message);

static void run_all(Run *run, const Capture *capture, EachFn *before)
{
    Reader r = reader_of(span_of(capture->bytes, capture->len));
    Err err = ERR_INIT;

    while (reader_left(&r)) {
        Span message = reader_span(&r, reader_u32be(&r, "length"), "message");

        if (before)
            before(run, message);
        if (!run_message(run, message, &err))
            fail_msg("%s", err.text);
    }
    if (!reader_finish(&r, "capture", &err))
        fail_msg("%s", err.text);
}

/* Runs of lines that differ only in their rows as one line with a count in front. */
static void fold(Buf *out, const char *lines)
{
    const char *last = lines;
    size_t last_len = 0;
    unsigned count = 0;

    while (*lines) {
        size_t len = strcspn(lines, "\n");
        const char *row = memmem(lines, len, "=(", 2);
        size_t head = row ? (size_t)(row - lines) : len;

        while (head < len && head && lines[head - 1] != ' ')
            head--;
        head -= head < len && head ? 1 : 0;
        if (count && head == last_len && memcmp(last, lines, head) == 0) {
            count++;
        } else {
            if (count)
                buf_printf(out, "%u %.*s\n", count, (int)last_len, last);
            last = lines;
            last_len = head;
            count = 1;
        }
        lines += len + (lines[len] == '\n');
    }
    if (count)
        buf_printf(out, "%u %.*s\n", count, (int)last_len, last);
}

/* What the workload's first half must give, by hand. BIG is 300 times 0123456789. */
#define BIG   "0123456789...3000"
#define PLAIN "relation public.plain d (id! 23, v 25, m, n 1700 655366, b 17)\n"
static const char small_text[] =
    "begin\n" PLAIN "insert public.plain new=('1','one','happy','1.50','\\x00ff')\n"
    "insert public.plain new=('2',null,null,null,null)\n"
    "insert public.plain new=('3','','sad','-0.01','\\x')\n"
    "update public.plain new=('1','eins','happy','1.50','\\x00ff')\n"
    "update public.plain key=('1',absent,absent,absent,absent) new=('10','eins','happy','1.50','\\x00ff')\n"
    "delete public.plain key=('2',absent,absent,absent,absent)\n"
    "commit\n"
    "begin\n"
    "relation public.toasted d (id! 23, big 25, small 25)\n"
    "insert public.toasted new=('1','" BIG "','s')\n"
    "update public.toasted new=('1',unchanged,'t')\n"
    "update public.toasted key=('1',absent,absent) new=('2',unchanged,'t')\n"
    "delete public.toasted key=('2',absent,absent)\n"
    "commit\n"
    "begin\n"
    "relation public.whole f (id! 23, big! 25, small! 25)\n"
    "insert public.whole new=('1','" BIG "',null)\n"
    "update public.whole old=('1','" BIG "',null) new=('1','" BIG "','now')\n"
    "update public.whole old=('1','" BIG "','now') new=('1',null,'now')\n"
    "delete public.whole old=('1',null,'now')\n"
    "commit\n"
    "begin\n"
    "relation public.indexed i (c 25, a! 23, b! 25)\n"
    "insert public.indexed new=('x','1','one')\n"
    "update public.indexed new=(null,'1','one')\n"
    "update public.indexed key=(absent,'1','one') new=(null,'2','one')\n"
    "delete public.indexed key=(absent,'2','one')\n"
    "commit\n"
    "begin\n"
    "relation public.keyed_by_text d (k! 25, v 23)\n"
    "insert public.keyed_by_text new=('kkkkkkkkkk...2600','1')\n"
    "update public.keyed_by_text key=('kkkkkkkkkk...2600',absent) new=('kkkkkkkkkk...2600','2')\n"
    "commit\n"
    "begin\n"
    "relation public.changing d (id! 23, a 23, b 25)\n"
    "insert public.changing new=('1','10','ten')\n"
    "commit\n"
    "begin\n"
    "relation public.changing d (id! 23, a 23, b 25, d 23)\n"
    "insert public.changing new=('2','20','twenty','70')\n"
    "commit\n"
    "begin\n"
    "relation public.changing d (id! 23, b 25, a 23)\n"
    "insert public.changing new=('3','thirty','80')\n"
    "commit\n"
    "begin\n"
    "truncate public.plain public.toasted cascade restart\n"
    "truncate public.whole\n"
    "commit\n"
    "begin\n"
    "message 'inside' 'a transaction'\n"
    "insert public.plain new=('4',null,null,null,null)\n"
    "commit\n"
    "outside message 'outside' ' 02'\n"
    "begin\n"
    "origin 'elsewhere'\n"
    "insert public.plain new=('5',null,null,null,null)\n"
    "commit\n";

/* Its rows in binary: int4send, textsend, enum_send, numeric_send, byteasend. */
static const char *const small_binary_rows[] = {
    "insert public.plain new=(bin:'\\00\\00\\00\\01',bin:'one',bin:'happy',"
    "bin:'\\00\\02\\00\\00\\00\\00\\00\\02\\00\\01\\13\\88',bin:'\\00\\ff')\n",
    "insert public.plain new=(bin:'\\00\\00\\00\\02',null,null,null,null)\n",
    "insert public.plain new=(bin:'\\00\\00\\00\\03',bin:'',bin:'sad',"
    "bin:'\\00\\01\\ff\\ff@\\00\\00\\02\\00d',bin:'')\n",
    "update public.toasted new=(bin:'\\00\\00\\00\\01',unchanged,bin:'t')\n",
    "update public.whole old=(bin:'\\00\\00\\00\\01',bin:'" BIG "',null) "
    "new=(bin:'\\00\\00\\00\\01',bin:'" BIG "',bin:'now')\n",
    "update public.indexed key=(absent,bin:'\\00\\00\\00\\01',bin:'one') "
    "new=(null,bin:'\\00\\00\\00\\02',bin:'one')\n",
    "update public.keyed_by_text key=(bin:'kkkkkkkkkk...2600',absent) "
    "new=(bin:'kkkkkkkkkk...2600',bin:'\\00\\00\\00\\02')\n",
};

/* Its second half: 600 rows; 3 updates in a subtransaction that stays; a subtransaction of 600 rows
 * rolled back, of which 272 had been sent; 597 deletes. Then 600 rows rolled back, of which 437 had
 * been sent. */
static const char streamed_folded[] =
    "1 stream start first\n1 relation public.bulk d (id! 23, v 25)\n437 insert in stream public.bulk\n1 stream stop\n"
    "1 stream start\n163 insert in stream public.bulk\n3 update in stream public.bulk\n"
    "272 insert in stream public.bulk\n1 stream stop\n1 stream abort part\n"
    "1 stream start\n1 message in stream 'streamed' 'x'\n468 delete in stream public.bulk\n1 stream stop\n"
    "1 stream start\n129 delete in stream public.bulk\n1 stream stop\n1 stream commit\n"
    "1 stream start first\n437 insert in stream public.bulk\n1 stream stop\n1 stream abort whole\n"
    "1 begin\n1 truncate public.bulk\n1 commit\n";

/* Five prepared transactions, two of them streamed: of one a part was rolled back. Version 18 has
 * seen at decoding that the last had been rolled back since, and sends nothing of it; the others
 * send all. How many rows go into a block depends on the version. */
#define PREPARED                                                         \
    "1 begin prepare 'stays'\n"                                          \
    "1 relation public.plain d (id! 23, v 25, m, n 1700 655366, b 17)\n" \
    "1 insert public.plain\n"                                            \
    "1 update public.plain\n"                                            \
    "1 prepare 'stays'\n"                                                \
    "1 begin prepare 'g'one'\n"                                          \
    "1 insert public.plain\n"                                            \
    "1 prepare 'g'one'\n"                                                \
    "1 begin\n"                                                          \
    "1 insert public.plain\n"                                            \
    "1 commit\n"                                                         \
    "1 begin prepare 'message'\n"                                        \
    "1 message 'no' 'rows'\n"                                            \
    "1 prepare 'message'\n"                                              \
    "1 rollback prepared 'g'one'\n"                                      \
    "1 commit prepared 'stays'\n"                                        \
    "1 commit prepared 'message'\n"
static const char prepared_15[] = PREPARED "1 stream start first\n"
                                           "1 relation public.bulk d (id! 23, v 25)\n"
                                           "437 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream start\n"
                                           "437 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream abort part\n"
                                           "1 stream prepare 'streamed'\n"
                                           "1 stream start first\n"
                                           "437 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream start\n"
                                           "163 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream prepare 'streamed, gone'\n"
                                           "1 stream start first\n"
                                           "437 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream abort whole\n"
                                           "1 commit prepared 'streamed'\n"
                                           "1 rollback prepared 'streamed, gone'\n"
                                           "1 begin\n"
                                           "1 truncate public.bulk\n"
                                           "1 commit\n";
static const char prepared_16[] = PREPARED "1 stream start first\n"
                                           "1 relation public.bulk d (id! 23, v 25)\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream start\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream abort part\n"
                                           "1 stream prepare 'streamed'\n"
                                           "1 stream start first\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream start\n"
                                           "138 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream prepare 'streamed, gone'\n"
                                           "1 stream start first\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream abort whole\n"
                                           "1 commit prepared 'streamed'\n"
                                           "1 rollback prepared 'streamed, gone'\n"
                                           "1 begin\n"
                                           "1 truncate public.bulk\n"
                                           "1 commit\n";
static const char prepared_18[] = PREPARED "1 stream start first\n"
                                           "1 relation public.bulk d (id! 23, v 25)\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream start\n"
                                           "462 insert in stream public.bulk\n"
                                           "1 stream stop\n"
                                           "1 stream abort part\n"
                                           "1 stream prepare 'streamed'\n"
                                           "1 begin prepare 'streamed, gone'\n"
                                           "1 prepare 'streamed, gone'\n"
                                           "1 commit prepared 'streamed'\n"
                                           "1 rollback prepared 'streamed, gone'\n"
                                           "1 begin\n"
                                           "1 truncate public.bulk\n"
                                           "1 commit\n";

static void test_v1_text(void **state)
{
    Capture *capture = capture_read("v1-text");
    Run run;

    (void)state;
    run_init(&run, 1);
    run_all(&run, capture, NULL);
    assert_string_equal(buf_str(&run.rec.text), small_text);
    run_fini(&run);
    free(capture);
}

static void test_v2_text(void **state)
{
    Capture *capture = capture_read("v2-text");
    AUTO_BUF folded;
    Run run;

    (void)state;
    run_init(&run, 2);
    buf_init(&folded, MIB(1));
    run_all(&run, capture, NULL);
    assert_memory_equal(buf_str(&run.rec.text), small_text, strlen(small_text));
    fold(&folded, buf_str(&run.rec.text) + strlen(small_text));
    assert_string_equal(buf_str(&folded), streamed_folded);
    run_fini(&run);
    free(capture);
}

static void has_binary_rows(const char *said)
{
    for (size_t i = 0; i < ARRAY_LEN(small_binary_rows); i++)
        if (!strstr(said, small_binary_rows[i]))
            fail_msg("missing: %s", small_binary_rows[i]);
    assert_null(strstr(said, "('"));
    assert_null(strstr(said, ",'"));
}

/* The same events, whatever the format of the values. */
static void test_v1_binary(void **state)
{
    Capture *capture = capture_read("v1-binary");
    AUTO_BUF folded, folded_text;
    Run run;

    (void)state;
    run_init(&run, 1);
    buf_init(&folded, MIB(1));
    buf_init(&folded_text, MIB(1));
    run_all(&run, capture, NULL);
    has_binary_rows(buf_str(&run.rec.text));
    fold(&folded, buf_str(&run.rec.text));
    fold(&folded_text, small_text);
    assert_string_equal(buf_str(&folded), buf_str(&folded_text));
    run_fini(&run);
    free(capture);
}

static void test_v2_binary(void **state)
{
    Capture *capture = capture_read("v2-binary");
    AUTO_BUF folded, small_folded;
    Run run;

    (void)state;
    run_init(&run, 2);
    buf_init(&folded, MIB(1));
    buf_init(&small_folded, MIB(1));
    run_all(&run, capture, NULL);
    has_binary_rows(strstr(buf_str(&run.rec.text), PLAIN));
    fold(&folded, buf_str(&run.rec.text));
    fold(&small_folded, small_text);
    assert_memory_equal(buf_str(&folded), streamed_folded, strlen(streamed_folded));
    assert_string_equal(buf_str(&folded) + strlen(streamed_folded), buf_str(&small_folded));
    run_fini(&run);
    free(capture);
}

static void folds_to(const char *name, unsigned protocol, const char *text)
{
    Capture *capture = capture_read(name);
    AUTO_BUF folded;
    Run run;

    run_init(&run, protocol);
    buf_init(&folded, MIB(1));
    run_all(&run, capture, NULL);
    fold(&folded, buf_str(&run.rec.text));
    if (strcmp(buf_str(&folded), text) != 0)
        print_error("%s:\n%s", name, buf_str(&folded));
    assert_string_equal(buf_str(&folded), text);
    run_fini(&run);
    free(capture);
}

static void test_prepared(void **state)
{
    (void)state;
    folds_to("v3-15", 3, prepared_15);
    folds_to("v4-16", 4, prepared_16);
    folds_to("v4-18", 4, prepared_18);
}

/* Long values are cut at some places only. */
static size_t next_cut(size_t len, size_t whole)
{
    return len < 64 || whole - len < 64 ? len + 1 : size_min(len + 101, whole - 1);
}

static void refuse_cuts(Run *run, Span message)
{
    uint64_t events = run->rec.events;
    Err err = ERR_INIT;
    AUTO_BUF longer;

    for (size_t len = 0; len < message.len; len = next_cut(len, message.len)) {
        assert_false(run_message(run, span_of(message.at, len), &err));
        assert_int_equal(err.kind, ERR_PROTOCOL);
    }
    buf_init(&longer, MIB(1));
    buf_put_span(&longer, message);
    buf_putc(&longer, '\0');
    assert_false(run_message(run, buf_span(&longer), &err));
    assert_int_equal(run->rec.events, events);
}

/* Every message cut anywhere is refused, and a refused message leaves no trace: the whole one still
 * decodes. */
static void test_cut_anywhere(void **state)
{
    static const struct {
        const char *name;
        unsigned protocol;
    } captures[] = {{"v1-text", 1}, {"v1-binary", 1}, {"v2-text", 2}, {"v2-binary", 2},
                    {"v3-15", 3},   {"v4-16", 4},     {"v4-18", 4}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(captures); i++) {
        Capture *capture = capture_read(captures[i].name);
        Run run;

        run_init(&run, captures[i].protocol);
        run_all(&run, capture, refuse_cuts);
        run_fini(&run);
        free(capture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1_text),  cmocka_unit_test(test_v1_binary),
        cmocka_unit_test(test_v2_text),  cmocka_unit_test(test_v2_binary),
        cmocka_unit_test(test_prepared), cmocka_unit_test(test_cut_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
