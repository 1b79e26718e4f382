#include "engine/stream/sqltext.h"

#include <ctype.h>
#include <strings.h>

/* --- words --------------------------------------------------------------------------------------
 */

static bool is_word_start(uint8_t c)
{
    return isalpha(c) || c == '_' || c >= 0x80;
}

static bool is_word(uint8_t c)
{
    return is_word_start(c) || isdigit(c) || c == '$';
}

void sql_lexer_init(SqlLexer *l, Span text, bool escapes)
{
    *l = (SqlLexer){.at = text.at, .end = text.at + text.len, .escapes = escapes};
}

static size_t left(const SqlLexer *l)
{
    return (size_t)(l->end - l->at);
}

static bool starts(const SqlLexer *l, const char *text)
{
    size_t len = strlen(text);

    return left(l) >= len && memcmp(l->at, text, len) == 0;
}

/* Comments nest. False: it doesn't end. */
static bool skip_comment(SqlLexer *l)
{
    unsigned depth = 0;

    while (left(l)) {
        if (starts(l, "/*")) {
            depth++;
            l->at += 2;
        } else if (starts(l, "*/")) {
            l->at += 2;
            if (--depth == 0)
                return true;
        } else {
            l->at++;
        }
    }
    return false;
}

static bool skip_blank(SqlLexer *l)
{
    for (;;) {
        if (left(l) && (isspace(*l->at) || *l->at == '\0')) {
            l->at++;
        } else if (starts(l, "--")) {
            while (left(l) && *l->at != '\n' && *l->at != '\r')
                l->at++;
        } else if (starts(l, "/*")) {
            if (!skip_comment(l))
                return false;
        } else {
            return true;
        }
    }
}

/* From behind the opening quote to behind the closing one. */
static bool skip_quoted(SqlLexer *l, uint8_t quote, bool escapes)
{
    while (left(l)) {
        uint8_t c = *l->at++;

        if (escapes && c == '\\' && left(l))
            l->at++;
        else if (c == quote && left(l) && *l->at == quote)
            l->at++;
        else if (c == quote)
            return true;
    }
    return false;
}

/* $tag$ … $tag$, at its first dollar. *is false: it is something else, and nothing was read. */
static bool skip_dollars(SqlLexer *l, bool *is)
{
    const uint8_t *at = l->at + 1;
    size_t len;
    const uint8_t *found;

    *is = false;
    if (at < l->end && is_word_start(*at))
        while (at < l->end && (is_word_start(*at) || isdigit(*at)))
            at++;
    if (at >= l->end || *at != '$')
        return true;
    *is = true;
    at++;
    len = (size_t)(at - l->at);
    found = at < l->end ? memmem(at, (size_t)(l->end - at), l->at, len) : NULL;
    if (!found)
        return false;
    l->at = found + len;
    return true;
}

/* A string constant with a letter in front: E'…' B'…' X'…' N'…', and U& with either quote. */
static bool prefixed(const SqlLexer *l, size_t *skip, uint8_t *quote, bool *escapes)
{
    size_t len = left(l);

    *escapes = l->escapes;
    if (len >= 2 && l->at[1] == '\'' && strchr("eEbBxXnN", *l->at)) {
        *skip = 2;
        *quote = '\'';
        *escapes |= *l->at == 'e' || *l->at == 'E';
        return true;
    }
    if (len >= 3 && (*l->at == 'u' || *l->at == 'U') && l->at[1] == '&' &&
        (l->at[2] == '\'' || l->at[2] == '"')) {
        *skip = 3;
        *quote = l->at[2];
        *escapes = false;
        return true;
    }
    return false;
}

static SqlKind scan_quoted(SqlLexer *l, size_t skip, uint8_t quote, bool escapes)
{
    l->at += skip;
    if (!skip_quoted(l, quote, escapes && quote == '\''))
        return SQL_BROKEN;
    return quote == '"' ? SQL_NAME : SQL_STRING;
}

static SqlKind scan_dollar(SqlLexer *l)
{
    bool is;

    if (left(l) > 1 && isdigit(l->at[1])) {
        l->at++;
        while (left(l) && isdigit(*l->at))
            l->at++;
        return SQL_PARAM;
    }
    if (!skip_dollars(l, &is))
        return SQL_BROKEN;
    if (is)
        return SQL_STRING;
    l->at++;
    return SQL_OTHER;
}

static SqlKind scan(SqlLexer *l)
{
    size_t skip;
    uint8_t quote;
    bool escapes;
    uint8_t c = *l->at;

    if (prefixed(l, &skip, &quote, &escapes))
        return scan_quoted(l, skip, quote, escapes);
    if (c == '\'' || c == '"')
        return scan_quoted(l, 1, c, l->escapes);
    if (c == '$')
        return scan_dollar(l);
    if (is_word_start(c)) {
        while (left(l) && is_word(*l->at))
            l->at++;
        return SQL_WORD;
    }
    if (isdigit(c)) {
        while (left(l) && (is_word(*l->at) || *l->at == '.'))
            l->at++;
        return SQL_NUMBER;
    }
    l->at++;
    return SQL_OTHER;
}

SqlToken sql_next(SqlLexer *l)
{
    SqlToken token = {.kind = SQL_BROKEN, .depth = l->depth};
    const uint8_t *from;

    if (!skip_blank(l))
        return token;
    token.kind = SQL_END;
    if (!left(l))
        return token;
    from = l->at;
    token.kind = scan(l);
    token.text = span_of(from, (size_t)(l->at - from));
    if (sql_is_char(token, '(') || sql_is_char(token, '[')) {
        l->depth++;
    } else if ((sql_is_char(token, ')') || sql_is_char(token, ']')) && l->depth) {
        l->depth--;
        token.depth = l->depth;
    }
    return token;
}

bool sql_is(SqlToken token, const char *word)
{
    return token.kind == SQL_WORD && token.text.len == strlen(word) &&
           strncasecmp((const char *)token.text.at, word, token.text.len) == 0;
}

bool sql_is_char(SqlToken token, char c)
{
    return token.kind == SQL_OTHER && token.text.len == 1 && *token.text.at == (uint8_t)c;
}

static bool is_last(SqlToken token)
{
    return token.kind == SQL_END || token.kind == SQL_BROKEN;
}

/* --- statements ---------------------------------------------------------------------------------
 */

/* Semicolons inside the body of an SQL function don't end the statement. Only its first words tell
 * that it can have one. */
typedef struct Body {
    unsigned words;
    bool is_create, is_routine;
    unsigned begins;
} Body;

static void body_see(Body *b, SqlToken token)
{
    if (token.kind != SQL_WORD || token.depth)
        return;
    b->words++;
    if (b->words == 1)
        b->is_create = sql_is(token, "create");
    else if (b->is_create && b->words <= 4 &&
             (sql_is(token, "function") || sql_is(token, "procedure")))
        b->is_routine = true;
    if (!b->is_routine)
        return;
    if (sql_is(token, "begin") || (b->begins && sql_is(token, "case")))
        b->begins++;
    else if (b->begins && sql_is(token, "end"))
        b->begins--;
}

static void list_add(SqlList *list, size_t *room, Arena *arena, const uint8_t *from,
                     const uint8_t *to)
{
    if (list->count == *room) {
        Span *grown = arena_array(arena, Span, *room ? *room * 2 : 8);

        if (list->count)
            memcpy(grown, list->at, list->count * sizeof(*grown));
        list->at = grown;
        *room = *room ? *room * 2 : 8;
    }
    list->at[list->count++] = span_of(from, (size_t)(to - from));
}

bool sql_split(Span text, bool escapes, Arena *arena, SqlList *list)
{
    const uint8_t *from = NULL, *to = NULL;
    size_t room = 0;
    Body body = {0};
    SqlLexer l;

    *list = (SqlList){0};
    sql_lexer_init(&l, text, escapes);
    for (;;) {
        SqlToken token = sql_next(&l);

        if (token.kind == SQL_BROKEN)
            return false;
        if (token.kind == SQL_END || (sql_is_char(token, ';') && !token.depth && !body.begins)) {
            if (from)
                list_add(list, &room, arena, from, to);
            if (token.kind == SQL_END)
                return token.depth == 0;
            from = NULL;
            body = (Body){0};
            continue;
        }
        if (!from)
            from = token.text.at;
        to = token.text.at + token.text.len;
        body_see(&body, token);
    }
}

/* --- what a statement is ------------------------------------------------------------------------
 */

/* Words that stand between CREATE and what is made, and aren't part of the tag. */
static bool is_modifier(SqlToken token)
{
    static const char *const words[] = {
        "or",     "replace",   "temp",    "temporary",  "local",   "global",    "unlogged",
        "unique", "recursive", "trusted", "procedural", "default", "constraint"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (sql_is(token, words[i]))
            return true;
    return false;
}

/* The next word of a tag; false at its end. */
static bool tag_word(const char **tag, char out[32])
{
    size_t len = strcspn(*tag, " ");

    if (!len || len >= 32)
        return false;
    memcpy(out, *tag, len);
    out[len] = '\0';
    *tag += len + ((*tag)[len] == ' ');
    return true;
}

static bool has_as(SqlLexer *l)
{
    for (SqlToken token = sql_next(l); !is_last(token); token = sql_next(l))
        if (token.depth == 0 && sql_is(token, "as"))
            return true;
    return false;
}

static bool is_select_into(SqlLexer *l, SqlToken first)
{
    if (!sql_is(first, "select") && !sql_is(first, "with"))
        return false;
    for (SqlToken token = sql_next(l); !is_last(token); token = sql_next(l))
        if (token.depth == 0 && sql_is(token, "into"))
            return true;
    return false;
}

/* GRANT, REVOKE, COMMENT and SECURITY LABEL: those on objects of the whole server aren't seen. */
static bool is_local(SqlLexer *l)
{
    static const char *const global[] = {"database", "tablespace", "role", "parameter", "event"};
    SqlToken token;

    do {
        token = sql_next(l);
    } while (!is_last(token) && !(token.depth == 0 && sql_is(token, "on")));
    if (is_last(token))
        return false;
    token = sql_next(l);
    for (size_t i = 0; i < ARRAY_LEN(global); i++)
        if (sql_is(token, global[i]))
            return false;
    return true;
}

static bool words_fit(SqlLexer *l, const char *tag)
{
    SqlToken token = sql_next(l);
    char word[32];
    bool is_create;

    if (!tag_word(&tag, word) || !sql_is(token, word))
        return false;
    is_create = sql_is(token, "create");
    token = sql_next(l);
    while (is_create && is_modifier(token))
        token = sql_next(l);
    while (tag_word(&tag, word)) {
        if (!sql_is(token, word))
            return false;
        token = sql_next(l);
    }
    return true;
}

bool sql_fits(Span statement, bool escapes, const char *tag)
{
    static const char *const scoped[] = {"GRANT", "REVOKE", "COMMENT", "SECURITY LABEL"};
    SqlLexer l;

    sql_lexer_init(&l, statement, escapes);
    if (strcmp(tag, "SELECT INTO") == 0)
        return is_select_into(&l, sql_next(&l));
    if (strcmp(tag, "CREATE TABLE AS") == 0)
        return words_fit(&l, "CREATE TABLE") && has_as(&l);
    for (size_t i = 0; i < ARRAY_LEN(scoped); i++)
        if (strcmp(tag, scoped[i]) == 0)
            return words_fit(&l, tag) && (sql_lexer_init(&l, statement, escapes), is_local(&l));
    return words_fit(&l, tag) && (strcmp(tag, "CREATE TABLE") != 0 || !has_as(&l));
}

SqlControl sql_control(Span statement, bool escapes)
{
    SqlLexer l;
    SqlToken token;

    sql_lexer_init(&l, statement, escapes);
    token = sql_next(&l);
    if (sql_is(token, "rollback") || sql_is(token, "abort"))
        return SQL_TAKES_BACK;
    if (sql_is(token, "commit") || sql_is(token, "end"))
        return SQL_ENDS;
    return sql_is(token, "prepare") && sql_is(sql_next(&l), "transaction") ? SQL_ENDS
                                                                           : SQL_NO_CONTROL;
}

bool sql_has_word(Span statement, bool escapes, const char *word)
{
    return sql_has_words(statement, escapes, word);
}

bool sql_has_words(Span statement, bool escapes, const char *words)
{
    SqlLexer l;

    sql_lexer_init(&l, statement, escapes);
    for (SqlToken token = sql_next(&l); !is_last(token); token = sql_next(&l)) {
        SqlLexer ahead = l;
        SqlToken next = token;
        const char *rest = words;
        char word[32];
        bool fits = true;

        while (fits && tag_word(&rest, word)) {
            fits = sql_is(next, word);
            if (*rest)
                next = sql_next(&ahead);
        }
        if (fits)
            return true;
    }
    return false;
}

/* --- statements made of statements --------------------------------------------------------------
 */

void sql_put_plain(Span statement, bool escapes, Buf *out)
{
    const uint8_t *from = statement.at;
    unsigned words = 0;
    SqlLexer l;

    sql_lexer_init(&l, statement, escapes);
    for (SqlToken token = sql_next(&l); !is_last(token); token = sql_next(&l)) {
        words += token.kind == SQL_WORD;
        if (words <= 5 && token.depth == 0 && sql_is(token, "concurrently")) {
            buf_put(out, from, (size_t)(token.text.at - from));
            from = token.text.at + token.text.len;
            break;
        }
    }
    buf_put(out, from, (size_t)(statement.at + statement.len - from));
}

/* WITH [NO] DATA at the end is left out: *end is moved in front of it. */
static void drop_with_data(Span statement, bool escapes, const uint8_t **end)
{
    SqlToken last[3] = {0};
    SqlLexer l;

    sql_lexer_init(&l, statement, escapes);
    for (SqlToken token = sql_next(&l); !is_last(token); token = sql_next(&l)) {
        last[0] = last[1];
        last[1] = last[2];
        last[2] = token;
    }
    if (!sql_is(last[2], "data"))
        return;
    if (sql_is(last[1], "with"))
        *end = last[1].text.at;
    else if (sql_is(last[1], "no") && sql_is(last[0], "with"))
        *end = last[0].text.at;
}

static bool put_create_as(SqlLexer *l, Span statement, Buf *out, bool *temporary)
{
    const uint8_t *end = statement.at + statement.len;
    SqlToken token = sql_next(l);

    while (is_modifier(token)) {
        *temporary |= sql_is(token, "temp") || sql_is(token, "temporary");
        token = sql_next(l);
    }
    if (!sql_is(token, "table"))
        return false;
    token = sql_next(l);
    if (sql_is(token, "if")) {
        (void)sql_next(l); /* not exists */
        (void)sql_next(l);
        token = sql_next(l);
    }
    *temporary |= sql_is(token, "pg_temp");
    drop_with_data(statement, l->escapes, &end);
    buf_put(out, statement.at, (size_t)(end - statement.at));
    buf_puts(out, "\nwith no data"); /* a new line: a comment may be the last thing */
    return true;
}

/* The first INTO outside of parentheses, and the name behind it. */
static bool put_select_into(SqlLexer *l, Span statement, Buf *out, bool *temporary)
{
    const uint8_t *into, *end = statement.at + statement.len;
    bool unlogged = false;
    SqlToken token;
    const uint8_t *name, *name_end;

    do {
        token = sql_next(l);
        if (is_last(token))
            return false;
    } while (token.depth || !sql_is(token, "into"));
    into = token.text.at;
    for (token = sql_next(l); is_modifier(token) || sql_is(token, "table"); token = sql_next(l)) {
        *temporary |= sql_is(token, "temp") || sql_is(token, "temporary");
        unlogged |= sql_is(token, "unlogged");
    }
    *temporary |= sql_is(token, "pg_temp");
    name = token.text.at;
    for (;;) {
        SqlLexer ahead;

        if (token.kind != SQL_WORD && token.kind != SQL_NAME)
            return false;
        name_end = token.text.at + token.text.len;
        ahead = *l;
        if (!sql_is_char(sql_next(&ahead), '.'))
            break;
        *l = ahead;
        token = sql_next(l);
    }
    buf_printf(out, "create %stable %.*s as ", unlogged ? "unlogged " : "", (int)(name_end - name),
               (const char *)name);
    buf_put(out, statement.at, (size_t)(into - statement.at));
    buf_put(out, name_end, (size_t)(end - name_end));
    buf_puts(out, "\nwith no data");
    return true;
}

bool sql_put_empty(Span statement, bool escapes, Buf *out, bool *temporary)
{
    SqlLexer l;
    SqlToken token;

    *temporary = false;
    sql_lexer_init(&l, statement, escapes);
    token = sql_next(&l);
    if (sql_is(token, "create"))
        return put_create_as(&l, statement, out, temporary);
    return put_select_into(&l, statement, out, temporary);
}

/* The words after which comes a parenthesis, and those that are functions without one. */
static bool is_call(SqlToken token, const SqlLexer *l)
{
    static const char *const bare[] = {
        "current_timestamp", "current_date", "current_time",    "localtime",    "localtimestamp",
        "current_user",      "session_user", "current_catalog", "current_role", "user"};
    SqlLexer ahead = *l;

    if (token.kind != SQL_WORD && token.kind != SQL_NAME)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(bare); i++)
        if (sql_is(token, bare[i]))
            return true;
    return sql_is_char(sql_next(&ahead), '(');
}

void sql_put_calls(Span statement, bool escapes, Buf *json)
{
    const char *comma = "[";
    SqlLexer l;

    sql_lexer_init(&l, statement, escapes);
    for (SqlToken token = sql_next(&l); !is_last(token); token = sql_next(&l)) {
        AUTO_BUF name;

        buf_init(&name, KIB(4));
        if (!is_call(token, &l))
            continue;
        for (size_t i = 0; i < token.text.len; i++)
            if (token.text.at[i] != '"')
                buf_put_u8(&name, token.kind == SQL_WORD ? (uint8_t)tolower(token.text.at[i])
                                                         : token.text.at[i]);
        buf_puts(json, comma);
        buf_put_json(json, buf_span(&name));
        comma = ",";
    }
    buf_puts(json, *comma == '[' ? "[]" : "]");
}

void sql_put_masked(Span statement, bool escapes, Buf *out)
{
    const uint8_t *before = NULL;
    SqlLexer l;
    SqlToken token;

    sql_lexer_init(&l, statement, escapes);
    for (token = sql_next(&l); !is_last(token); token = sql_next(&l)) {
        if (before && token.text.at > before)
            buf_putc(out, ' ');
        if (token.kind == SQL_STRING)
            buf_puts(out, "'***'");
        else
            buf_put_span(out, token.text);
        before = token.text.at + token.text.len;
    }
    if (token.kind == SQL_BROKEN)
        buf_puts(out, " …");
}
