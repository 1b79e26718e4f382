/* sqltext.h - SQL text cut into words and statements, as PostgreSQL's own scanner and psql cut it.
 *
 * Knows quotes, E'', dollar quotes, nested comments, parentheses and the bodies of SQL functions
 * (BEGIN ATOMIC). Understands no grammar: what is asked of a statement is whether its words can be
 * what the server called it (its command tag). Spans point into the text. Source: PostgreSQL
 * documentation, 4.1 Lexical Structure.
 */
#ifndef SQLTEXT_H
#define SQLTEXT_H

#include "engine/base/arena.h"
#include "engine/base/buf.h"

typedef enum SqlKind {
    SQL_END,    /* of the text */
    SQL_BROKEN, /* a quote or a comment that doesn't end */
    SQL_WORD,   /* key word or name; compare with sql_is */
    SQL_NAME,   /* quoted: "…" or U&"…" */
    SQL_STRING, /* any string or bit constant, dollar-quoted or not */
    SQL_NUMBER,
    SQL_PARAM, /* $1 */
    SQL_OTHER, /* one character of anything else */
} SqlKind;

typedef struct SqlToken {
    SqlKind kind;
    Span text;
    unsigned depth; /* parentheses and brackets around it */
} SqlToken;

typedef struct SqlLexer {
    const uint8_t *at, *end;
    unsigned depth;
    bool escapes; /* standard_conforming_strings is off: '\'' */
} SqlLexer;

void sql_lexer_init(SqlLexer *lexer, Span text, bool escapes);
SqlToken sql_next(SqlLexer *lexer);
bool sql_is(SqlToken token, const char *word); /* an unquoted word, in any case */
bool sql_is_char(SqlToken token, char c);

/* The statements of a text without what separates them, empty ones left out. False: it can't be
 * cut. */
typedef struct SqlList {
    Span *at;
    size_t count;
} SqlList;
MUST_USE bool sql_split(Span text, bool escapes, Arena *arena, SqlList *list);

/* Whether a statement can be what the server calls by this tag, such as CREATE TABLE. */
bool sql_fits(Span statement, bool escapes, const char *tag);

typedef enum SqlControl {
    SQL_NO_CONTROL,
    SQL_ENDS,       /* COMMIT, PREPARE TRANSACTION, … */
    SQL_TAKES_BACK, /* ROLLBACK, also to a savepoint */
} SqlControl;
SqlControl sql_control(Span statement, bool escapes);

bool sql_has_word(Span statement, bool escapes, const char *word);
/* These words one after the other, separated by single blanks. */
bool sql_has_words(Span statement, bool escapes, const char *words);

/* Without CONCURRENTLY. */
void sql_put_plain(Span statement, bool escapes, Buf *out);
/* CREATE TABLE … AS or SELECT … INTO as a CREATE TABLE … AS that makes no rows. *temporary: it is
 * about a temporary table. False: not understood. */
MUST_USE bool sql_put_empty(Span statement, bool escapes, Buf *out, bool *temporary);
/* The names of all functions that it calls, and of other words in front of a parenthesis: JSON. */
void sql_put_calls(Span statement, bool escapes, Buf *json);
/* For people: in one line, every constant in it masked. */
void sql_put_masked(Span statement, bool escapes, Buf *out);

#endif
