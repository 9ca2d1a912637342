//! Comma-separated values (RFC 4180) with a header, row by row, with the place of every value.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use super::{RowFault, number};
use crate::scenario::suggest::did_you_mean;

/// A file that is read row by row.
pub(super) struct Table {
    file: PathBuf,
    reader: BufReader<File>,
    /// Which value of a row each wanted column is.
    columns: Vec<Option<usize>>,
    names: Vec<&'static str>,
    header: Vec<Field>,
    width: usize,
    /// The last line that was read.
    line: u64,
    text: String,
    ended: bool,
}

/// The columns of a file of one format.
pub(super) struct Columns {
    /// Those that are read. A `?` marks one that may be absent, a `|` stands between names of one.
    pub(super) read: &'static [&'static str],
    /// Those that the published files have as well, and that nothing is made of.
    pub(super) unused: &'static [&'static str],
}

impl Columns {
    /// The names of one column that is read.
    fn names(column: &'static str) -> impl Iterator<Item = &'static str> {
        column.trim_start_matches('?').split('|')
    }

    /// All names that a header may have.
    fn known(&self) -> impl Iterator<Item = &'static str> {
        self.read.iter().copied().flat_map(Self::names).chain(self.unused.iter().copied())
    }
}

/// A row: the values of the wanted columns, in their order.
pub(super) struct Row<'a> {
    table: &'a Table,
    /// Where the row begins.
    line: u64,
    fields: Vec<Field>,
}

struct Field {
    text: String,
    /// In characters, from 1.
    column: usize,
}

impl Field {
    /// The name of a column.
    fn name(&self) -> &str {
        // Some programs write a mark of the encoding first.
        self.text.trim_start_matches('\u{feff}').trim()
    }
}

impl Table {
    /// Opens a file and reads its header. Columns whose names begin with `?` may be absent; names
    /// with `|` are found under any of them.
    pub(super) fn open(file: &Path, columns: &[&'static str]) -> Result<Self, RowFault> {
        let whole = |cause: String| RowFault {
            file: file.to_owned(),
            line: 0,
            column: 1,
            cause,
            value: String::new(),
        };
        let opened = File::open(file).map_err(|e| whole(format!("cannot be read: {e}")))?;
        let mut table = Self {
            file: file.to_owned(),
            reader: BufReader::new(opened),
            columns: Vec::new(),
            names: columns.to_vec(),
            header: Vec::new(),
            width: 0,
            line: 0,
            text: String::new(),
            ended: false,
        };
        let Some((_, header)) = table.record()? else {
            return Err(whole("is empty: the first line must name the columns".to_owned()));
        };
        table.width = header.len();
        let position = |name: &str| header.iter().position(|f| f.name() == name);
        for (index, field) in header.iter().enumerate() {
            if position(field.name()).is_some_and(|first| first < index) {
                let cause = format!("the column `{}` is there twice", field.name());
                return Err(table.fault(1, field.column, cause, String::new()));
            }
        }
        for name in columns {
            let (needed, names) = match name.strip_prefix('?') {
                Some(names) => (false, names),
                None => (true, *name),
            };
            let found = names.split('|').find_map(position);
            if found.is_none() && needed {
                let there: Vec<&str> = header.iter().map(|f| f.text.trim()).collect();
                return Err(RowFault {
                    file: file.to_owned(),
                    line: 1,
                    column: 1,
                    cause: format!("has no column `{}`", names.replace('|', "` or `")),
                    value: there.join(","),
                });
            }
            table.columns.push(found);
        }
        table.header = header;
        Ok(table)
    }

    /// Opens a file that has no other columns than these.
    pub(super) fn open_strictly(file: &Path, columns: &Columns) -> Result<Self, RowFault> {
        let table = Self::open(file, columns.read)?;
        let fault =
            |field: &Field, cause: String| Err(table.fault(1, field.column, cause, String::new()));
        for field in &table.header {
            let name = field.name();
            if !columns.known().any(|known| known == name) {
                let near = did_you_mean(name, columns.known());
                return fault(field, format!("unknown column `{name}`: {near}"));
            }
            // Of two names of one column only the first would be read.
            let same = |column: &&&'static str| Columns::names(column).any(|n| n == name);
            let other = columns.read.iter().find(same).and_then(|column| {
                let earlier = table.header.iter().take_while(|f| f.column < field.column);
                earlier.map(Field::name).find(|f| Columns::names(column).any(|n| n == *f))
            });
            if let Some(other) = other {
                return fault(field, format!("the column `{name}` says what `{other}` says"));
            }
        }
        Ok(table)
    }

    /// That the file has nothing but a header.
    pub(super) fn without_rows(&self) -> RowFault {
        let cause = "has no rows: there is nothing but the header".to_owned();
        self.fault(0, 1, cause, String::new())
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next_row(&mut self) -> Option<Result<Row<'_>, RowFault>> {
        let (line, mut fields) = match self.record() {
            Ok(record) => record?,
            Err(fault) => return Some(Err(fault)),
        };
        if fields.len() != self.width {
            let cause = format!("has {} values, not {}", fields.len(), self.width);
            return Some(Err(self.fault(line, 1, cause, String::new())));
        }
        let mut take = |index: Option<usize>| match index.and_then(|i| fields.get_mut(i)) {
            Some(field) => Field { text: std::mem::take(&mut field.text), column: field.column },
            None => Field { text: String::new(), column: 1 },
        };
        let fields = self.columns.iter().map(|index| take(*index)).collect();
        Some(Ok(Row { table: self, line, fields }))
    }

    fn fault(&self, line: u64, column: usize, cause: String, value: String) -> RowFault {
        RowFault { file: self.file.clone(), line, column, cause, value }
    }

    /// The next record that is not an empty line, with the line where it begins.
    fn record(&mut self) -> Result<Option<(u64, Vec<Field>)>, RowFault> {
        loop {
            self.text.clear();
            if !self.more()? {
                return Ok(None);
            }
            if !self.text.trim_end_matches(['\r', '\n']).is_empty() {
                break;
            }
        }
        let begins = self.line;
        // A quoted value may go on in the next line.
        while self.text.matches('"').count() % 2 == 1 {
            if !self.more()? {
                let cause = "a quotation mark is not closed".to_owned();
                return Err(self.fault(begins, 1, cause, String::new()));
            }
        }
        Ok(Some((begins, split(self.text.trim_end_matches(['\r', '\n'])))))
    }

    /// Reads one more line; tells whether there was one.
    fn more(&mut self) -> Result<bool, RowFault> {
        if self.ended {
            return Ok(false);
        }
        self.line += 1;
        match self.reader.read_line(&mut self.text) {
            Ok(length) => {
                self.ended = length == 0;
                Ok(length > 0)
            }
            Err(error) => {
                // Whatever follows cannot be told apart.
                self.ended = true;
                let cause = match error.kind() {
                    ErrorKind::InvalidData => "is not UTF-8".to_owned(),
                    _ => format!("cannot be read: {error}"),
                };
                Err(self.fault(self.line, 1, cause, String::new()))
            }
        }
    }
}

/// The values of a record.
fn split(text: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut field = Field { text: String::new(), column: 1 };
    let mut quoted = false;
    let mut letters = text.chars().zip(1..).peekable();
    while let Some((letter, column)) = letters.next() {
        match letter {
            '"' if quoted && letters.peek().is_some_and(|(next, _)| *next == '"') => {
                field.text.push('"');
                letters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => {
                fields.push(std::mem::replace(
                    &mut field,
                    Field { text: String::new(), column: column + 1 },
                ));
            }
            letter => field.text.push(letter),
        }
    }
    fields.push(field);
    fields
}

impl Row<'_> {
    /// The value of the n-th wanted column; empty when it is absent.
    pub(super) fn text(&self, column: usize) -> &str {
        self.fields[column].text.trim()
    }

    /// What is wrong with the value of a column.
    pub(super) fn fault(&self, column: usize, what: &str) -> RowFault {
        let name = self.table.names[column].trim_start_matches('?');
        let name = name.split('|').next().unwrap_or(name);
        let value = self.text(column).to_owned();
        let column = self.fields[column].column;
        self.table.fault(self.line, column, format!("`{name}` {what}"), value)
    }

    /// A whole number, maybe written `3.0`.
    pub(super) fn whole(&self, column: usize) -> Result<u64, RowFault> {
        let fault = || self.fault(column, "is no whole number");
        let scaled = number::scaled(self.text(column), 3).filter(|n| n % 1_000 == 0);
        scaled.and_then(|n| u64::try_from(n / 1_000).ok()).ok_or_else(fault)
    }

    /// A whole number; `None` when the value is empty.
    pub(super) fn whole_if_any(&self, column: usize) -> Result<Option<u64>, RowFault> {
        if self.text(column).is_empty() { Ok(None) } else { self.whole(column).map(Some) }
    }

    /// A number times `10^digits`; `None` when the value is empty or `NULL`.
    pub(super) fn scaled(&self, column: usize, digits: u32) -> Result<Option<i128>, RowFault> {
        match self.text(column) {
            "" | "NULL" | "null" | "None" => Ok(None),
            text => match number::scaled(text, digits) {
                Some(number) => Ok(Some(number)),
                None => Err(self.fault(column, "is no number")),
            },
        }
    }

    /// A part of `unit`, rounded up; at most a million of it.
    pub(super) fn part_of(&self, column: usize, unit: u64) -> Result<u64, RowFault> {
        let part = self.part_if_any(column, unit)?;
        part.ok_or_else(|| self.fault(column, "is missing"))
    }

    /// The same; `None` when the value is empty or `NULL`.
    pub(super) fn part_if_any(&self, column: usize, unit: u64) -> Result<Option<u64>, RowFault> {
        let billion = 1_000_000_000;
        let Some(part) = self.scaled(column, 9)? else { return Ok(None) };
        match u128::try_from(part) {
            Ok(part) if part <= 1_000_000 * billion => {
                let amount = (part * u128::from(unit)).div_ceil(billion);
                u64::try_from(amount).map(Some).map_err(|_| self.fault(column, "is too large"))
            }
            Ok(_) => Err(self.fault(column, "is too large")),
            Err(_) => Err(self.fault(column, "is less than nothing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_may_hold_anything() {
        let fields = split(r#"a,"b,""c""",,d"#);
        let texts: Vec<(&str, usize)> =
            fields.iter().map(|f| (f.text.as_str(), f.column)).collect();
        assert_eq!(texts, [("a", 1), ("b,\"c\"", 3), ("", 13), ("d", 14)]);
    }
}
