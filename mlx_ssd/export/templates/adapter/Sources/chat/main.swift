import Foundation
import Student

// chat BASE ADAPTER PROMPT
let arguments = CommandLine.arguments
let student = try await Student(base: URL(filePath: arguments[1]), adapter: URL(filePath: arguments[2]))
for try await piece in student.answer(arguments[3]) {
    print(piece, terminator: "")
}
print()
