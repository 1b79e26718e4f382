/* Every message of pgoutput, from bytes written by hand: what comes out, and what is refused and
 * how it says so. */
#include "decoders/pgoutput/pgoutput.h"

#include "tests/unit/kit.h"
#include "tests/unit/recorder.h"

/* Tables that most cases need: t has a key and two more columns, whole has identity full. */
#define BEGIN     "B q:0x10 q:5 d:7;"
#define COMMIT    "C b:0 q:0x10 q:0x20 q:6;"
#define COLUMNS   "w:3 b:1 s:id d:23 d:-1 b:0 s:a d:25 d:-1 b:0 s:b d:1043 d:14;"
#define REL_T     "R d:100 s:public s:t d " COLUMNS
#define REL_WHOLE "R d:101 s:public s:whole f w:2 b:1 s:a d:25 d:-1 b:1 s:b d:25 d:-1;"
#define REL_INDEX "R d:102 s:app s:idx i w:3 b:0 s:c d:25 d:-1 b:1 s:k d:23 d:-1 b:1 s:l d:23 d:-1;"
#define OPEN      BEGIN REL_T REL_WHOLE REL_INDEX
#define STREAM    "S d:9 b:1;"
#define STREAM_T  "R d:9 d:100 s:public s:t d " COLUMNS

#define PREPARE_BEGIN "b q:0x10 q:0x20 q:6 d:7 s:gid;"
#define PREPARE       "P b:0 q:0x10 q:0x20 q:6 d:7 s:gid;"

#define SAID_PREPARE_BEGIN "begin prepare 'gid' xid=7 at=0/10 end=0/20 time=946684800000006\n"
#define SAID_PREPARE       "prepare 'gid' xid=7 at=0/10 end=0/20 time=946684800000006\n"
#define SAID_BEGIN         "begin xid=7 commit=0/10 time=946684800000005\n"
#define SAID_COMMIT        "commit at=0/10 end=0/20 time=946684800000006\n"
#define SAID_T             "relation 100 public.t d (id! 23, a 25, b 1043 14)\n"
#define SAID_WHOLE         "relation 101 public.whole f (a! 25, b! 25)\n"
#define SAID_INDEX         "relation 102 app.idx i (c 25, k! 23, l! 23)\n"
#define SAID_OPEN          SAID_BEGIN SAID_T SAID_WHOLE SAID_INDEX

static const struct {
    unsigned protocol;
    const char *name;
    const char *messages;
    const char *said;
} golden[] = {
    {2, "empty transaction", BEGIN COMMIT, SAID_BEGIN SAID_COMMIT},
    {2, "times before 2000", "B q:0x10 q:-946684800000001 d:7",
     "begin xid=7 commit=0/10 time=-1\n"},
    {2, "high positions and ids", "B q:0xFEDCBA9876543210 q:0 d:0xFFFFFFFF",
     "begin xid=4294967295 commit=FEDCBA98/76543210 time=946684800000000\n"},
    {2, "origin", BEGIN "O q:1 s:elsewhere;" COMMIT, SAID_BEGIN "origin 'elsewhere'\n" SAID_COMMIT},
    {2, "relation", BEGIN REL_T, SAID_BEGIN SAID_T},
    {2, "relation without columns", BEGIN "R d:5 s:public s:none n w:0",
     SAID_BEGIN "relation 5 public.none n ()\n"},
    {2, "relation in pg_catalog", BEGIN "R d:5 s: s:x d w:0",
     SAID_BEGIN "relation 5 pg_catalog.x d ()\n"},
    {2, "type", BEGIN "Y d:16390 s:public s:mood;" COMMIT, SAID_BEGIN SAID_COMMIT},
    {2, "insert", OPEN "I d:100 N w:3 t r:1 t r: n",
     SAID_OPEN "insert public.t new=('1','',null)\n"},
    {2, "insert, binary", OPEN "I d:100 N w:3 b r:1 b r:x t r:y",
     SAID_OPEN "insert public.t new=(bin:'1',bin:'x','y')\n"},
    {2, "update, key the same", OPEN "U d:100 N w:3 t r:1 u n",
     SAID_OPEN "update public.t new=('1',unchanged,null)\n"},
    {2, "update, key changed: what isn't of the key is not NULL",
     OPEN "U d:100 K w:3 t r:1 n n N w:3 t r:2 u t r:x",
     SAID_OPEN "update public.t key=('1',absent,absent) new=('2',unchanged,'x')\n"},
    {2, "update, an old key tells an unchanged value", OPEN "U d:100 K w:3 t r:1 n n N w:3 u n n",
     SAID_OPEN "update public.t key=('1',absent,absent) new=('1',null,null)\n"},
    {2, "update, full: the old row tells an unchanged value",
     OPEN "U d:101 O w:2 t r:long n N w:2 u t r:x",
     SAID_OPEN "update public.whole old=('long',null) new=('long','x')\n"},
    {2, "update, full: NULL is NULL", OPEN "U d:101 O w:2 n n N w:2 u u",
     SAID_OPEN "update public.whole old=(null,null) new=(null,null)\n"},
    {2, "update, key by index", OPEN "U d:102 K w:3 n t r:1 t r:2 N w:3 n t r:1 t r:3",
     SAID_OPEN "update app.idx key=(absent,'1','2') new=(null,'1','3')\n"},
    {2, "delete by key", OPEN "D d:100 K w:3 t r:1 n n",
     SAID_OPEN "delete public.t key=('1',absent,absent)\n"},
    {2, "delete by key, whatever the rest says", OPEN "D d:100 K w:3 t r:1 t r:x b r:y",
     SAID_OPEN "delete public.t key=('1',absent,absent)\n"},
    {2, "delete, full", OPEN "D d:101 O w:2 t r:1 n",
     SAID_OPEN "delete public.whole old=('1',null)\n"},
    {2, "truncate", OPEN "T d:1 b:0 d:100", SAID_OPEN "truncate public.t\n"},
    {2, "truncate, everything", OPEN "T d:2 b:3 d:101 d:100",
     SAID_OPEN "truncate public.whole public.t cascade restart\n"},
    {2, "truncate, cascade", OPEN "T d:1 b:1 d:100", SAID_OPEN "truncate public.t cascade\n"},
    {2, "truncate, restart", OPEN "T d:1 b:2 d:100", SAID_OPEN "truncate public.t restart\n"},
    {2, "message inside", BEGIN "M b:1 q:0x11 s:prefix r:content",
     SAID_BEGIN "message 'prefix' 'content'\n"},
    {2, "message outside", "M b:0 q:0x11 s:prefix r:", "outside message at=0/11 'prefix' ''\n"},
    {2, "message that isn't the transaction's", BEGIN "M b:0 q:0x11 s:p r:c",
     SAID_BEGIN "outside message at=0/11 'p' 'c'\n"},
    {2, "stream",
     STREAM
     "O q:1 s:elsewhere;" STREAM_T "Y d:9 d:16390 s:public s:mood; I d:9 d:100 N w:3 t r:1 n n; "
     "U d:10 d:100 N w:3 t r:1 n n; D d:10 d:100 K w:3 t r:1 n n; T d:9 d:1 b:0 d:100; M d:9 b:1 q:1 s:p r:c; E;"
     "S d:9 b:0; E; A d:9 d:10; c d:9 b:0 q:0x10 q:0x20 q:6; A d:11 d:11",
     "stream start xid=9 first\norigin 'elsewhere'\n" SAID_T
     "insert in=9 public.t new=('1',null,null)\n"
     "update in=10 public.t new=('1',null,null)\n"
     "delete in=10 public.t key=('1',absent,absent)\n"
     "truncate in=9 public.t\nmessage in=9 'p' 'c'\nstream stop\nstream start xid=9\nstream stop\n"
     "stream abort xid=9 subxid=10\nstream commit xid=9 at=0/10 end=0/20 time=946684800000006\n"
     "stream abort xid=11 subxid=11\n"},
    {2, "what a stream block described is known outside",
     STREAM STREAM_T "E;" BEGIN "I d:100 N w:3 n n n",
     "stream start xid=9 first\n" SAID_T "stream stop\n" SAID_BEGIN
     "insert public.t new=(null,null,null)\n"},
    {2, "a changed table",
     OPEN "I d:100 N w:3 n n n; R d:100 s:public s:t d w:1 b:1 s:b d:25 d:-1; I d:100 N w:1 t r:x",
     SAID_OPEN
     "insert public.t new=(null,null,null)\nrelation 100 public.t d (b! 25)\ninsert public.t new=('x')\n"},
    {2, "a table described again is no new one", OPEN REL_T "I d:100 N w:3 n n n",
     SAID_OPEN "insert public.t new=(null,null,null)\n"},
    {3, "prepared, committed",
     PREPARE_BEGIN "O q:1 s:elsewhere;" REL_T "I d:100 N w:3 t r:1 n n;" PREPARE
                   "K b:0 q:0x30 q:0x40 q:8 d:7 s:gid;",
     SAID_PREPARE_BEGIN "origin 'elsewhere'\n" SAID_T
                        "insert public.t new=('1',null,null)\n" SAID_PREPARE
                        "commit prepared 'gid' xid=7 at=0/30 end=0/40 time=946684800000008\n"},
    {3, "prepared, rolled back", PREPARE_BEGIN PREPARE "r b:0 q:0x20 q:0x40 q:6 q:9 d:7 s:gid;",
     SAID_PREPARE_BEGIN SAID_PREPARE
     "rollback prepared 'gid' xid=7 at=0/20 end=0/40 time=946684800000009\n"},
    {3, "prepared after it was streamed", STREAM "E; p b:0 q:0x10 q:0x20 q:6 d:9 s:gid;",
     "stream start xid=9 first\nstream stop\n"
     "stream prepare 'gid' xid=9 at=0/10 end=0/20 time=946684800000006\n"},
    {4, "stream abort of protocol 4", STREAM "E; A d:9 d:10 q:0x30 q:7;",
     "stream start xid=9 first\nstream stop\nstream abort xid=9 subxid=10\n"},
    {3, "stream abort of protocol 3", STREAM "E; A d:9 d:9;",
     "stream start xid=9 first\nstream stop\nstream abort xid=9 subxid=9\n"},
};

/* Decoder, arena and recorder of one case. Messages are kept: values point into them. */
typedef struct Case {
    Decoder *decoder;
    Arena arena;
    Recorder rec;
    Err err;
    uint8_t *blocks[64];
    size_t block_count;
} Case;

static void case_init(Case *c, unsigned protocol)
{
    *c = (Case){.decoder = pgoutput_new(protocol), .err = ERR_INIT};
    arena_init(&c->arena, 256);
    recorder_init(&c->rec);
}

static void case_fini(Case *c)
{
    for (size_t i = 0; i < c->block_count; i++)
        free(c->blocks[i]);
    decoder_free(c->decoder);
    arena_fini(&c->arena);
    recorder_fini(&c->rec);
}

static Span case_keep(Case *c, Span message)
{
    uint8_t *block = kit_exact(message);

    assert_true(c->block_count < ARRAY_LEN(c->blocks));
    c->blocks[c->block_count++] = block;
    return span_of(block, message.len);
}

static bool case_bytes(Case *c, Span message)
{
    Sink sink = recorder_sink(&c->rec);

    return decoder_decode(c->decoder, case_keep(c, message), &c->arena, &sink, &c->err);
}

/* The first of the messages; *rest behind it. */
static bool case_one(Case *c, const char *messages, const char **rest)
{
    AUTO_BUF m;
    bool ok;

    buf_init(&m, MIB(1));
    *rest = kit_put_words(&m, messages);
    ok = case_bytes(c, buf_span(&m));
    *rest += strspn(*rest, " ");
    return ok;
}

/* All of them; false at the first that fails, which must be the last. */
static bool case_all(Case *c, const char *messages)
{
    while (*messages)
        if (!case_one(c, messages, &messages)) {
            assert_string_equal(messages, "");
            return false;
        }
    return true;
}

static void must(Case *c, const char *messages)
{
    if (!case_all(c, messages))
        fail_msg("%s", c->err.text);
}

static void test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        Case c;

        case_init(&c, golden[i].protocol);
        if (!case_all(&c, golden[i].messages))
            fail_msg("%s: %s", golden[i].name, c.err.text);
        if (strcmp(buf_str(&c.rec.text), golden[i].said) != 0)
            print_error("%s\n", golden[i].name);
        assert_string_equal(buf_str(&c.rec.text), golden[i].said);
        case_fini(&c);
    }
}

/* A decoder as it stands before the last of `count` messages of a golden case, and that message. */
static const char *case_before(Case *c, size_t which, size_t count)
{
    const char *messages = golden[which].messages;

    case_init(c, golden[which].protocol);
    for (size_t i = 1; i < count; i++)
        assert_true(case_one(c, messages, &messages));
    return messages;
}

static void refuses_cut(size_t which, size_t count, size_t len)
{
    AUTO_BUF m;
    Case c;
    uint64_t events;

    buf_init(&m, MIB(1));
    (void)kit_put_words(&m, case_before(&c, which, count));
    events = c.rec.events;
    assert_false(case_bytes(&c, span_of(m.at, len)));
    assert_int_equal(c.err.kind, ERR_PROTOCOL);
    assert_int_equal(c.rec.events, events);
    case_fini(&c);
}

static void refuses_more(size_t which, size_t count)
{
    AUTO_BUF m;
    Case c;
    uint64_t events;

    buf_init(&m, MIB(1));
    (void)kit_put_words(&m, case_before(&c, which, count));
    events = c.rec.events;
    buf_putc(&m, 'n');
    assert_false(case_bytes(&c, buf_span(&m)));
    assert_non_null(strstr(c.err.text, ": 1 bytes left over at byte "));
    assert_int_equal(c.rec.events, events);
    case_fini(&c);
}

/* Every message of every golden case, cut at every length, and with one byte too many. */
static void test_cut_anywhere(void **state)
{
    size_t cuts = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        const char *next = golden[i].messages;

        for (size_t count = 1; *next; count++) {
            AUTO_BUF m;

            buf_init(&m, MIB(1));
            next = kit_put_words(&m, next);
            next += strspn(next, " ");
            for (size_t len = 0; len < m.len; len++, cuts++)
                refuses_cut(i, count, len);
            refuses_more(i, count);
        }
    }
    assert_true(cuts > 4000);
}

static const struct {
    unsigned protocol;
    const char *messages;
    const char *text;
} refused[] = {
    {2, ";", "message: type does not fit at byte 0 of 0"},
    {2, "Z", "message type 'Z' (0x5A) is unknown"},
    {2, "b:0", "message type '?' (0x00) is unknown"},
    {2, "b:255", "message type '?' (0xFF) is unknown"},
    {2, "p q:1", "STREAM PREPARE: belongs to protocol 3, 2 is spoken here"},
    {2, PREPARE_BEGIN, "BEGIN PREPARE: belongs to protocol 3, 2 is spoken here"},
    {2, "K q:1", "COMMIT PREPARED: belongs to protocol 3, 2 is spoken here"},
    {2, "r q:1", "ROLLBACK PREPARED: belongs to protocol 3, 2 is spoken here"},
    {3, PREPARE, "PREPARE: can't come outside a transaction"},
    {3, BEGIN PREPARE, "PREPARE: can't come inside a transaction"},
    {3, PREPARE_BEGIN "C b:0 q:0x10 q:0x20 q:6",
     "COMMIT: can't come inside a transaction to be prepared"},
    {3, PREPARE_BEGIN "K b:0 q:0x30 q:0x40 q:8 d:7 s:gid",
     "COMMIT PREPARED: can't come inside a transaction to be prepared"},
    {3, PREPARE_BEGIN "P b:0 q:0x11 q:0x20 q:6 d:7 s:gid",
     "PREPARE: the prepare LSN is 0/11, its BEGIN PREPARE said 0/10"},
    {3, PREPARE_BEGIN "P b:1 q:0x10 q:0x20 q:6 d:7 s:gid",
     "PREPARE: flags at byte 2 of 34: has bits that nobody knows"},
    {3, "b q:0x10 q:0x10 q:6 d:7 s:gid",
     "BEGIN PREPARE: end LSN at byte 17 of 33: is not behind the other LSN"},
    {3, "b q:0x10 q:0x20 q:6 d:0 s:gid", "BEGIN PREPARE: transaction id at byte 33 of 33: is 0"},
    {3, "b q:0x10 q:0x20 q:6 d:7 s:", "BEGIN PREPARE: gid at byte 30 of 30: is empty"},
    {3, "K b:0 q:0 q:0x20 q:6 d:7 s:gid", "COMMIT PREPARED: commit LSN at byte 10 of 34: is 0/0"},
    {3, "r b:0 q:0x40 q:0x20 q:6 q:6 d:7 s:gid",
     "ROLLBACK PREPARED: end LSN at byte 18 of 42: is not behind the other LSN"},
    {4, "A d:9 d:9", "STREAM ABORT: abort LSN does not fit at byte 9 of 9"},
    {1, STREAM, "STREAM START: belongs to protocol 2, 1 is spoken here"},
    {1, "c", "STREAM COMMIT: belongs to protocol 2, 1 is spoken here"},
    {2, "B q:0 q:5 d:7", "BEGIN: final LSN at byte 9 of 21: is 0/0"},
    {2, "B q:1 q:0x7FFFFFFFFFFFFFFF d:7", "BEGIN: commit time at byte 17 of 21: out of range"},
    {2, "B q:1 b:1", "BEGIN: commit time does not fit at byte 9 of 10"},
    {2, BEGIN "C b:1 q:0x10 q:0x20 q:6",
     "COMMIT: flags at byte 2 of 26: has bits that nobody knows"},
    {2, BEGIN "C b:0 q:0 q:0x20 q:6", "COMMIT: commit LSN at byte 10 of 26: is 0/0"},
    {2, BEGIN "C b:0 q:0x10 q:0x10 q:6",
     "COMMIT: end LSN at byte 18 of 26: is not behind the commit LSN"},
    {2, BEGIN "C b:0 q:0x11 q:0x20 q:6", "COMMIT: the commit LSN is 0/11, its BEGIN said 0/10"},
    {2, "c d:9 b:2 q:0x11 q:0x20 q:6",
     "STREAM COMMIT: flags at byte 6 of 30: has bits that nobody knows"},
    {2, "S d:9 b:2", "STREAM START: first segment at byte 6 of 6: is neither 0 nor 1"},
    {2, BEGIN REL_T "I d:100 N w:3 n n n; O q:1 s:x", "ORIGIN: can't come behind a change"},
    {2, BEGIN "R d:5 s:public s:x q w:0",
     "RELATION: replica identity at byte 15 of 17: is none of d, n, f, i"},
    {2, BEGIN "R d:5 s:public s:x b:0 w:0",
     "RELATION: replica identity at byte 15 of 17: is none of d, n, f, i"},
    {2, BEGIN "R d:5 s:public s:x d w:1 b:2 s:a d:1 d:1",
     "RELATION: column flags at byte 20 of 28: has bits that nobody knows"},
    {2, BEGIN "R d:5 s:public s:x d w:0xFFFF b:1 s:a d:1 d:1",
     "RELATION: column count at byte 17 of 28: more than the message can hold"},
    {2, BEGIN "R d:5 s:public x", "RELATION: name does not fit at byte 12 of 13"},
    {2, BEGIN "I d:100 N w:0", "INSERT: relation id 100 was never described"},
    {2, BEGIN "U d:100 N w:0", "UPDATE: relation id 100 was never described"},
    {2, BEGIN "D d:100 K w:0", "DELETE: relation id 100 was never described"},
    {2, BEGIN "T d:1 b:0 d:100", "TRUNCATE: relation id 100 was never described"},
    {2, OPEN "I d:100 K w:0", "INSERT: row marker at byte 6 of 8: is not N"},
    {2, OPEN "U d:100 X w:0", "UPDATE: row marker at byte 6 of 8: is none of K, O, N"},
    {2, OPEN "U d:100 K w:3 n n n K", "UPDATE: row marker at byte 12 of 12: is not N"},
    {2, OPEN "D d:100 N w:0", "DELETE: row marker at byte 6 of 8: is none of K, O"},
    {2, OPEN "I d:100 N w:2 n n", "INSERT: the new row has 2 columns, relation public.t has 3"},
    {2, OPEN "I d:100 N w:4 n n n n", "INSERT: the new row has 4 columns, relation public.t has 3"},
    {2, OPEN "U d:100 K w:1 n N w:3 n n n",
     "UPDATE: the old row has 1 columns, relation public.t has 3"},
    {2, OPEN "D d:100 K w:1 n", "DELETE: the old row has 1 columns, relation public.t has 3"},
    {2, OPEN "I d:100 N w:0xFFFF n n n",
     "INSERT: column count of the new row at byte 8 of 11: more than the message can hold"},
    {2, OPEN "I d:100 N w:3 n x n",
     "INSERT: column kind of the new row at byte 10 of 11: is none of n, u, t, b"},
    {2, OPEN "I d:100 N w:3 n n t w:1",
     "INSERT: column length of the new row does not fit at byte 11 of 13"},
    {2, OPEN "I d:100 N w:3 n n t d:0xFFFFFFFF",
     "INSERT: column value of the new row does not fit at byte 15 of 15"},
    {2, OPEN "D d:100 K w:3 t d:9 n n",
     "DELETE: column value of the old row does not fit at byte 13 of 15"},
    {2, OPEN "I d:100 N w:3 n u n",
     "INSERT: column a of the new row of public.t is marked unchanged"},
    {2, OPEN "D d:101 O w:2 n u",
     "DELETE: column b of the old row of public.whole is marked unchanged"},
    {2, OPEN "U d:101 O w:2 u n N w:2 n n",
     "UPDATE: column a of the old row of public.whole is marked unchanged"},
    {2, OPEN "T d:0 b:0", "TRUNCATE: relation count at byte 6 of 6: is 0"},
    {2, OPEN "T d:1 b:4 d:100", "TRUNCATE: options at byte 6 of 10: has bits that nobody knows"},
    {2, OPEN "T d:0xFFFFFFFF b:0 d:100",
     "TRUNCATE: relation count at byte 6 of 10: more than the message can hold"},
    {2, BEGIN "M b:2 q:1 s:p r:c", "MESSAGE: flags at byte 17 of 17: has bits that nobody knows"},
    {2, "M b:1 q:1 s:p r:c", "MESSAGE: a transactional one can't come outside a transaction"},
    {2, "M b:0 q:1 s:p d:0x80000000 c", "MESSAGE: content does not fit at byte 16 of 17"},
    {2, STREAM "I d:9 d:100", "INSERT: relation id 100 was never described"},
    {2, STREAM "I w:9", "INSERT: transaction id does not fit at byte 1 of 3"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        Case c;
        char want[256];

        case_init(&c, refused[i].protocol);
        snprintf(want, sizeof(want), "pgoutput decoder: %s", refused[i].text);
        if (case_all(&c, refused[i].messages))
            fail_msg("taken: %s", refused[i].messages);
        assert_string_equal(c.err.text, want);
        assert_int_equal(c.err.kind, ERR_PROTOCOL);
        assert_false(c.err.transient);
        case_fini(&c);
    }
}

/* Where each message may come. */
static void test_places(void **state)
{
    static const struct {
        const char *name, *plain, *streamed; /* streamed: with a transaction id */
        bool outside, inside, block;
    } rules[] = {
        {"BEGIN", BEGIN, BEGIN, true, false, false},
        {"COMMIT", COMMIT, COMMIT, false, true, false},
        {"ORIGIN", "O q:1 s:x", "O q:1 s:x", false, true, true},
        {"RELATION", REL_T, STREAM_T, false, true, true},
        {"TYPE", "Y d:1 s:a s:b", "Y d:9 d:1 s:a s:b", false, true, true},
        {"INSERT", "I d:100 N w:3 n n n", "I d:9 d:100 N w:3 n n n", false, true, true},
        {"UPDATE", "U d:100 N w:3 n n n", "U d:9 d:100 N w:3 n n n", false, true, true},
        {"DELETE", "D d:100 K w:3 n n n", "D d:9 d:100 K w:3 n n n", false, true, true},
        {"TRUNCATE", "T d:1 b:0 d:100", "T d:9 d:1 b:0 d:100", false, true, true},
        {"MESSAGE", "M b:0 q:1 s:p r:c", "M d:9 b:0 q:1 s:p r:c", true, true, true},
        {"STREAM START", STREAM, STREAM, true, false, false},
        {"STREAM STOP", "E", "E", false, false, true},
        {"STREAM COMMIT", "c d:9 b:0 q:0x10 q:0x20 q:6", "c d:9 b:0 q:0x10 q:0x20 q:6", true, false,
         false},
        {"STREAM ABORT", "A d:9 d:9", "A d:9 d:9", true, false, false},
    };
    static const char *const before[] = {BEGIN REL_T COMMIT, BEGIN REL_T,
                                         BEGIN REL_T COMMIT STREAM};
    static const char *const places[] = {"outside a transaction", "inside a transaction",
                                         "inside a stream block"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules) * 3; i++) {
        size_t rule = i / 3, place = i % 3;
        bool legal =
            ((const bool[]){rules[rule].outside, rules[rule].inside, rules[rule].block})[place];
        char want[128];
        Case c;

        case_init(&c, 2);
        must(&c, before[place]);
        snprintf(want, sizeof(want), "pgoutput decoder: %s: can't come %s", rules[rule].name,
                 places[place]);
        if (case_all(&c, place == 2 ? rules[rule].streamed : rules[rule].plain) != legal)
            fail_msg("%s %s: %s", rules[rule].name, places[place], c.err.text);
        if (!legal)
            assert_string_equal(c.err.text, want);
        case_fini(&c);
    }
}

/* Some servers send a Stream Abort for what they never streamed, even where streaming is off. */
static void test_stray_stream_abort(void **state)
{
    Case c;

    (void)state;
    case_init(&c, 1);
    must(&c, "A d:9 d:9;" BEGIN COMMIT);
    assert_string_equal(buf_str(&c.rec.text),
                        "stream abort xid=9 subxid=9\n" SAID_BEGIN SAID_COMMIT);
    case_fini(&c);
}

static void test_protocol_1_has_no_xids(void **state)
{
    Case c;

    (void)state;
    case_init(&c, 1);
    must(&c, OPEN "I d:100 N w:3 n n n");
    assert_int_equal(c.rec.last_change->xid, 0);
    case_fini(&c);
}

static void test_relations_stay(void **state)
{
    const Relation *first, *second;
    Case c;

    (void)state;
    case_init(&c, 2);
    must(&c, BEGIN REL_T);
    first = c.rec.last_relation;
    must(&c, "R d:100 s:public s:t f w:1 b:1 s:new_name d:25 d:-1");
    second = c.rec.last_relation;
    assert_ptr_not_equal(first, second);
    assert_true(second->serial > first->serial);
    assert_string_equal(first->columns[2].name, "b");
    assert_int_equal(first->columns[2].type_mod, 14);
    must(&c, "I d:100 N w:1 n");
    assert_ptr_equal(c.rec.last_change->rel, second);
    must(&c, "R d:100 s:public s:t f w:1 b:1 s:new_name d:25 d:-1; I d:100 N w:1 n");
    assert_ptr_equal(c.rec.last_change->rel, second);
    case_fini(&c);
}

static void test_serials_are_of_the_process(void **state)
{
    Case a, b;

    (void)state;
    case_init(&a, 1);
    case_init(&b, 1);
    must(&a, BEGIN REL_T);
    must(&b, BEGIN REL_T);
    assert_true(b.rec.last_relation->serial > a.rec.last_relation->serial);
    case_fini(&a);
    case_fini(&b);
}

static void test_raw(void **state)
{
    AUTO_BUF plain;
    Case c;

    (void)state;
    buf_init(&plain, MIB(1));
    (void)kit_put_words(&plain, REL_T);
    case_init(&c, 2);
    must(&c, STREAM STREAM_T "I d:9 d:100 N w:3 n n n");
    assert_true(span_equal(c.rec.last_relation->raw, buf_span(&plain)));
    assert_ptr_equal(c.rec.last_change->raw.at, c.blocks[c.block_count - 1]);
    assert_int_equal(c.rec.last_change->raw.len, 1 + 4 + 4 + 1 + 2 + 3);
    case_fini(&c);
}

static void test_restart(void **state)
{
    Case c;
    const Relation *before;

    (void)state;
    case_init(&c, 2);
    must(&c, STREAM STREAM_T "I d:9 d:100 N w:3 n n n");
    before = c.rec.last_relation;
    assert_true(pgoutput_in_stream(c.decoder));
    pgoutput_restart(c.decoder);
    assert_false(pgoutput_in_stream(c.decoder));
    must(&c, BEGIN);
    assert_false(case_all(&c, "I d:100 N w:3 n n n"));
    assert_string_equal(c.err.text,
                        "pgoutput decoder: INSERT: relation id 100 was never described");
    must(&c, REL_T "I d:100 N w:3 n n n;" COMMIT);
    assert_ptr_not_equal(before, c.rec.last_relation);
    assert_string_equal(before->name, "t");
    case_fini(&c);
}

static void test_many_relations(void **state)
{
    Case c;
    Sink sink;
    uint8_t *blocks[1000];

    (void)state;
    case_init(&c, 1);
    sink = recorder_sink(&c.rec);
    must(&c, BEGIN);
    for (unsigned i = 0; i < ARRAY_LEN(blocks); i++) {
        char words[128];
        AUTO_BUF m;

        buf_init(&m, MIB(1));
        snprintf(words, sizeof(words),
                 i < 500 ? "R d:%u s:public s:t d w:1 b:1 s:a d:23 d:-1" : "I d:%u N w:1 n",
                 i % 500);
        (void)kit_put_words(&m, words);
        blocks[i] = kit_exact(buf_span(&m));
        assert_true(decoder_decode(c.decoder, span_of(blocks[i], m.len), &c.arena, &sink, &c.err));
        if (i >= 500)
            assert_int_equal(c.rec.last_change->rel->id, i - 500);
    }
    for (unsigned i = 0; i < ARRAY_LEN(blocks); i++)
        free(blocks[i]);
    case_fini(&c);
}

static bool spooled(Case *c, const char *message, bool with_xid)
{
    AUTO_BUF m;
    Sink sink = recorder_sink(&c->rec);

    buf_init(&m, MIB(1));
    (void)kit_put_words(&m, message);
    return pgoutput_decode_spooled(c->decoder, case_keep(c, buf_span(&m)), with_xid, &c->arena,
                                   &sink, &c->err);
}

static void test_spooled(void **state)
{
    Case c;

    (void)state;
    case_init(&c, 2);
    assert_true(spooled(&c, "O q:1 s:elsewhere", true));
    assert_true(spooled(&c, STREAM_T, true));
    assert_true(spooled(&c, "I d:9 d:100 N w:3 t r:1 n n", true));
    assert_true(spooled(&c, "I d:100 N w:3 t r:2 n n", false));
    assert_true(spooled(&c, "Y d:1 s:a s:b", false));
    assert_true(spooled(&c, "M b:1 q:1 s:p r:c", false));
    assert_true(spooled(&c, "M d:9 b:1 q:1 s:p r:c", true));
    assert_true(spooled(&c, "O q:1 s:again", false));
    assert_true(spooled(&c, REL_WHOLE, false));
    assert_true(spooled(&c, "T d:9 d:1 b:0 d:101", true));
    assert_true(spooled(&c, "D d:9 d:101 O w:2 n n", true));
    assert_true(spooled(&c, "U d:101 O w:2 t r:1 n N w:2 u n", false));
    assert_string_equal(
        buf_str(&c.rec.text),
        "origin 'elsewhere'\n" SAID_T "insert in=9 public.t new=('1',null,null)\n"
        "insert public.t new=('2',null,null)\nmessage 'p' 'c'\nmessage in=9 'p' 'c'\norigin 'again'\n" SAID_WHOLE
        "truncate in=9 public.whole\ndelete in=9 public.whole old=(null,null)\n"
        "update public.whole old=('1',null) new=('1',null)\n");
    assert_false(pgoutput_in_stream(c.decoder));
    must(&c, BEGIN "O q:1 s:x;" COMMIT); /* the live stream was not moved */
    case_fini(&c);
}

/* A live decoder that reads a spool in the middle of a stream block goes on where it was. */
static void test_spooled_in_between(void **state)
{
    Case c;

    (void)state;
    case_init(&c, 2);
    must(&c, STREAM STREAM_T);
    assert_true(spooled(&c, "I d:100 N w:3 n n n", false));
    assert_true(pgoutput_in_stream(c.decoder));
    must(&c, "O q:1 s:x; I d:9 d:100 N w:3 n n n; E");
    case_fini(&c);
}

static void test_spooled_refused(void **state)
{
    static const struct {
        const char *message;
        bool with_xid;
        const char *text;
    } cases[] = {
        {BEGIN, false, "BEGIN: can't come from a spool"},
        {COMMIT, false, "COMMIT: can't come from a spool"},
        {STREAM, true, "STREAM START: can't come from a spool"},
        {"E", true, "STREAM STOP: can't come from a spool"},
        {"c d:9 b:0 q:0x10 q:0x20 q:6", true, "STREAM COMMIT: can't come from a spool"},
        {"A d:1 d:1", false, "STREAM ABORT: can't come from a spool"},
        {"Z", false, "message type 'Z' (0x5A) is unknown"},
        {"", false, "message: type does not fit at byte 0 of 0"},
        {"I d:100 N w:0", false, "INSERT: relation id 100 was never described"},
        {"I d:1", true, "INSERT: relation id does not fit at byte 5 of 5"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Case c;
        char want[256];

        case_init(&c, 2);
        snprintf(want, sizeof(want), "pgoutput decoder: from the spool: %s", cases[i].text);
        assert_false(spooled(&c, cases[i].message, cases[i].with_xid));
        assert_string_equal(c.err.text, want);
        assert_int_equal(c.rec.events, 0);
        case_fini(&c);
    }
}

static void peeks(Case *c, const char *message, char type, uint32_t xid)
{
    AUTO_BUF m;
    PgOutputPeek peek = {0};

    buf_init(&m, MIB(1));
    (void)kit_put_words(&m, message);
    assert_true(pgoutput_peek(c->decoder, case_keep(c, buf_span(&m)), &peek, &c->err));
    assert_int_equal(peek.type, type);
    assert_int_equal(peek.xid, xid);
}

static void peek_fails(Case *c, const char *message, const char *text)
{
    AUTO_BUF m;
    PgOutputPeek peek = {0};

    buf_init(&m, MIB(1));
    (void)kit_put_words(&m, message);
    assert_false(pgoutput_peek(c->decoder, case_keep(c, buf_span(&m)), &peek, &c->err));
    assert_string_equal(c->err.text, text);
    assert_int_equal(c->err.kind, ERR_PROTOCOL);
}

static void test_peek(void **state)
{
    Case c;

    (void)state;
    case_init(&c, 2);
    peeks(&c, "B", 'B', 0);
    peeks(&c, "I d:100", 'I', 0);
    peeks(&c, "S d:9 b:1", 'S', 0);
    peek_fails(&c, "", "message: type does not fit at byte 0 of 0");
    peek_fails(&c, "Z", "message type 'Z' (0x5A) is unknown");
    must(&c, STREAM);
    assert_true(pgoutput_in_stream(c.decoder));
    peeks(&c, "I d:77 d:100", 'I', 77);
    peeks(&c, "R d:78", 'R', 78);
    peeks(&c, "O q:1 s:x", 'O', 0);
    peeks(&c, "E", 'E', 0);
    peek_fails(&c, "I b:1", "INSERT: transaction id does not fit at byte 1 of 2");
    must(&c, "E");
    assert_false(pgoutput_in_stream(c.decoder));
    case_fini(&c);
}

/* Every callback can stop the decoding, and its error comes through. */
static void test_sink_refuses(void **state)
{
    static const struct {
        const char *event, *messages;
    } cases[] = {
        {"begin", BEGIN},
        {"commit", BEGIN COMMIT},
        {"change", BEGIN REL_T "I d:100 N w:3 n n n"},
        {"relation", BEGIN REL_T},
        {"message", "M b:0 q:1 s:p r:c"},
        {"origin", BEGIN "O q:1 s:x"},
        {"stream_start", STREAM},
        {"stream_stop", STREAM "E"},
        {"stream_commit", "c d:9 b:0 q:0x10 q:0x20 q:6"},
        {"stream_abort", "A d:9 d:9"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char want[128];
        Case c;

        case_init(&c, 2);
        c.rec.refuse = cases[i].event;
        assert_false(case_all(&c, cases[i].messages));
        snprintf(want, sizeof(want), "pgoutput decoder: the sink refused %s", cases[i].event);
        assert_string_equal(c.err.text, want);
        assert_int_equal(c.err.kind, ERR_BUG);
        case_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_stray_stream_abort),
        cmocka_unit_test(test_protocol_1_has_no_xids),
        cmocka_unit_test(test_relations_stay),
        cmocka_unit_test(test_serials_are_of_the_process),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_many_relations),
        cmocka_unit_test(test_spooled),
        cmocka_unit_test(test_spooled_in_between),
        cmocka_unit_test(test_spooled_refused),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_sink_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
