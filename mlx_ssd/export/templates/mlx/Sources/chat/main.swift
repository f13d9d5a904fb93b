import Foundation
import Student

// chat FOLDER PROMPT
let student = try await Student(folder: URL(filePath: CommandLine.arguments[1]))
for try await piece in student.answer(CommandLine.arguments[2]) {
    print(piece, terminator: "")
}
print()
